import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from unialign_gen.errors import InputError
from unialign_gen.mixing import METHODS, mix, path, spherical_mean, tangent, to_decoder
from unialign_gen.notes import collected


def points(count: int, seed: int, dim: int = 16) -> torch.Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_slerp_is_shoemakes_formula(seed, t):
    a, b = points(2, seed).double()
    angle = math.acos(float((a @ b).clamp(-1, 1)))
    expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
    assert torch.allclose(mix([a, b], [1 - t, t], "slerp").double(), expected, atol=1e-5)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_spherical_mean_of_two_is_slerp(seed, t):
    a, b = points(2, seed)
    assert torch.allclose(mix([a, b], [1 - t, t], "spherical_mean"), mix([a, b], [1 - t, t], "slerp"), atol=1e-4)


def test_spherical_mean_minimises_squared_angles():
    z, weights = points(4, 3, dim=5).double(), [0.1, 0.4, 0.3, 0.2]
    z = F.normalize(z + 1.5 * F.normalize(z.sum(0), dim=0), dim=1)  # inside a half sphere, where the mean is unique

    def cost(x):
        u = F.normalize(torch.tensor(x), dim=0)
        return float(sum(w * torch.arccos((u @ p).clamp(-1, 1)) ** 2 for w, p in zip(weights, z, strict=True)))

    best = minimize(cost, z.mean(0).numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 20000})
    mean = mix(list(z), weights, "spherical_mean").double()
    assert torch.allclose(mean, F.normalize(torch.tensor(best.x), dim=0), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_rotating_the_inputs_rotates_the_mix(method, seed):
    a, b = points(2, seed, dim=8).double()
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    got = mix([a @ turn, b @ turn], [0.3, 0.7], method).double()
    assert torch.allclose(got, mix([a, b], [0.3, 0.7], method).double() @ turn, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_mix_is_a_unit_vector_whatever_the_input_norms(method):
    a, b = points(2, 1)
    got = mix([a * 40, b * 0.01], [2, 6], method)
    assert got.norm() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(got, mix([a, b], [0.25, 0.75], method), atol=1e-6)


def test_lerp_halves_the_angle_of_two_equal_weights():
    a, b = points(2, 5)
    got = mix([a, b])
    assert float(got @ a) == pytest.approx(math.cos(math.acos(float(a @ b)) / 2), abs=1e-6)


def test_negative_weight_moves_away():
    a, b = F.normalize(points(2, 2) + 1, dim=1)
    assert float(mix([a, b], [1, -0.5]) @ b) < float(a @ b)


def test_opposite_vectors():
    a = points(1, 7)[0]
    half = mix([a, -a], [1, 1], "slerp")
    assert float(half @ a) == pytest.approx(0, abs=1e-5)
    assert torch.equal(half, mix([a, -a], [1, 1], "slerp"))
    assert float(mix([a, -a], [1, 1], "spherical_mean") @ a) == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="cancel"):
        mix([a, -a], [1, 1], "lerp")


def test_same_vector_stays():
    a = points(1, 9)[0]
    for method in METHODS:
        assert torch.allclose(mix([a, a], [0.2, 0.8], method), a, atol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "weights", "method", "words"),
    [
        ([], None, "lerp", "nothing to mix"),
        ([torch.ones(4)], [1, 2], "lerp", "2 weights for 1"),
        ([torch.ones(4)], [float("nan")], "lerp", "finite"),
        ([torch.ones(4)], [0.0], "lerp", "all weights are zero"),
        ([torch.ones(4), torch.ones(5)], None, "lerp", "differ in shape"),
        ([torch.ones(4), torch.ones(4)], [1, -1], "slerp", "no negative"),
        ([torch.ones(4)] * 3, None, "slerp", "exactly two"),
        ([torch.zeros(4)], None, "lerp", "zero vector"),
        ([torch.full((4,), torch.inf)], None, "lerp", "infinite"),
        ([torch.ones(4)], None, "cubic", "unknown mixing method"),
    ],
)
def test_bad_input_is_one_clear_line(embeddings, weights, method, words):
    with pytest.raises(InputError, match=words) as error:
        mix(embeddings, weights, method)
    assert "\n" not in str(error.value)


def test_path_has_both_ends_and_equal_steps():
    a, b = points(2, 11)
    way = path(a, b, 6)
    assert torch.allclose(way[0], a, atol=1e-6)
    assert torch.allclose(way[-1], b, atol=1e-6)
    steps = torch.arccos((way[1:] * way[:-1]).sum(1).clamp(-1, 1))
    assert torch.allclose(steps, steps.mean().expand(5), atol=1e-4)


def test_scale_contract():
    z = points(3, 1)
    assert torch.allclose(to_decoder(mix([z, z.roll(1, 0)]), 12.5).norm(dim=1), torch.full((3,), 12.5))
    with pytest.raises(InputError):
        to_decoder(z, 0.0)


def test_spherical_mean_settles_or_says_so():
    for seed in range(60):  # without settling, fifty steps were up to 0.004 away
        z = list(points(3, seed, dim=4))
        with collected() as notes:
            mean = mix(z, None, "spherical_mean")
        assert not notes
        slope = sum(tangent(mean.double(), p.double()) for p in z)  # zero at a mean
        assert float(slope.norm()) < 1e-5
    with collected() as notes:
        spherical_mean(z, [1.0, 1.0, 1.0], steps=3)
    assert [n.kind for n in notes] == ["not settled"]


@pytest.mark.parametrize("size", [1e308, 5e-324, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_only_ratios_of_weights_count(method, size):
    a, b = points(2, 3)
    assert torch.allclose(mix([a, b], [size, size], method), mix([a, b], None, method), atol=1e-6)


def test_one_point_is_its_own_mix_bit_for_bit():
    """And slerp still needs two, whatever is asked of it."""
    point = F.normalize(torch.randn(3, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    assert torch.equal(mix([point]), point)
    assert torch.equal(mix([mix([point], [0.3])], [2.0]), point)
    with pytest.raises(InputError, match="exactly two"):
        mix([point], method="slerp")
