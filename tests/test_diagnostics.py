"""Diagnostics against autograd, closed forms, scikit-learn-free references and known distributions."""

import math

import pytest
import torch
import torch.nn.functional as F

from unialign_gen import diagnostics
from unialign_gen.objectives import GapShift


def unit(n, d, seed=0, dtype=torch.float64):
    return F.normalize(torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed)), dim=1)


def around(m, n=50, d=12, spread=0.5):
    common = unit(n, d, 99)
    return {f"m{i}": F.normalize(common + spread * unit(n, d, i), dim=1) for i in range(m)}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(diagnostics, "ROWS", 7)


def test_pull_and_push_are_the_gradient_of_infonce():
    """V_a and Phi_a by autograd: minus the gradient of the positive logits, and that of the log-sum-exps."""
    z, tau = around(4), 0.2
    w = {"m1": 1.0, "m2": 2.0, "m3": 0.5}
    anchor = z["m0"].clone().requires_grad_()
    positive = sum(w[n] * (anchor * z[n]).sum() / tau for n in w)
    lse = sum(w[n] * (anchor @ z[n].T / tau).logsumexp(1).sum() for n in w)
    (pull,) = torch.autograd.grad(positive, anchor)
    (push,) = torch.autograd.grad(lse, anchor)
    got = diagnostics.conflicts(z, "m0", tau, w)
    assert torch.allclose(got.zeta, F.cosine_similarity(pull, push), atol=1e-9)
    assert torch.allclose(got.chi, 1 - pull.norm(dim=1) / (3.5 / tau), atol=1e-9)


def test_a_sample_of_rows_gives_the_same_rows():
    z = around(3)
    whole, some = diagnostics.conflicts(z, "m0"), diagnostics.conflicts(z, "m0", rows=20)
    assert len(some.zeta) == 20
    assert all(float((whole.zeta - v).abs().min()) < 1e-12 for v in some.zeta)


@pytest.mark.parametrize("m", [2, 3, 5, 9])
@pytest.mark.parametrize("spread", [0.0, 0.4, 3.0])
def test_corollary_2_holds(m, spread):
    got = diagnostics.conflicts(around(m, spread=spread), "m0")
    assert float(got.chi.mean()) >= got.bound - 1e-9
    if spread == 0:
        assert float(got.chi.abs().max()) < 1e-9


def test_bound_at_known_points():
    assert diagnostics.corollary_2_bound(2, 0.3) == pytest.approx(0)
    assert diagnostics.corollary_2_bound(5, 1.0) == pytest.approx(0)
    assert diagnostics.corollary_2_bound(5, 0.0) == pytest.approx(0.5)
    assert diagnostics.corollary_2_bound(10**8, 0.25) == pytest.approx(0.5, abs=1e-6)  # eq 8


def naive_hoelder(z, tau, loo, average):
    names, m, d = list(z), len(z), next(iter(z.values())).shape[1]

    def kernel(x, y, t):
        return torch.exp(-torch.cdist(x, y).square() / (2 * t**2)) / (2 * math.pi * t**2) ** (d / 2)

    own = 0.0
    for n in names:
        k = kernel(z[n], z[n], tau[n])
        k = (k.sum(1) - k.diagonal()) / (len(k) - 1) if loo else k.mean(1)
        own += k.pow(m - 1).mean().log() / m
    joint = []
    for a in names if average else names[:1]:
        product = 1.0
        for n in names:
            if n != a:
                product = product * kernel(z[a], z[n], tau[n]).mean(1)
        joint.append(product.mean())
    return float(own - torch.stack(joint).mean().log())


@pytest.mark.parametrize("loo", [False, True])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_hoelder_is_eq_24_with_its_options(m, loo, average):
    z = around(m)
    tau = {n: 0.5 + 0.1 * i for i, n in enumerate(z)}
    got = diagnostics.hoelder_divergence(z, tau, leave_one_out=loo, anchor_averaging=average)
    assert got == pytest.approx(naive_hoelder(z, tau, loo, average), abs=1e-8)
    one = dict.fromkeys(z, 0.6)
    assert diagnostics.hoelder_divergence(z, 0.6) == pytest.approx(naive_hoelder(z, one, False, False), abs=1e-8)


def test_hoelder_is_zero_for_one_distribution_and_grows_with_a_gap():
    z = {f"m{i}": unit(3000, 4, i) for i in range(3)}
    same = diagnostics.hoelder_divergence(z, 0.3, leave_one_out=True, anchor_averaging=True)
    assert abs(same) < 0.02
    shift = torch.tensor([0.5, 0, 0, 0], dtype=torch.float64)
    apart = diagnostics.hoelder_divergence(dict(z, m1=F.normalize(z["m1"] + shift, dim=1)), 0.3, leave_one_out=True)
    assert apart > 0.05


def test_wang_and_isola_as_in_their_paper():
    x, y = unit(40, 6), unit(40, 6, 1)
    assert diagnostics.alignment(x, y) == pytest.approx(float((x - y).norm(dim=1).pow(2).mean()))
    assert diagnostics.uniformity(x) == pytest.approx(float(torch.pdist(x).pow(2).mul(-2).exp().mean().log()), abs=1e-9)


def test_gap_sees_a_shift_and_its_removal():
    common = unit(600, 16)
    z = {"a": F.normalize(common + 0.3 * unit(600, 16, 1), dim=1), "b": F.normalize(common + 0.3 * unit(600, 16, 2), dim=1)}
    close = diagnostics.modality_gap(z)["a|b"]
    moved = dict(z, b=F.normalize(z["b"] + 1.5 * unit(1, 16, 7), dim=1))
    far = diagnostics.modality_gap(moved)["a|b"]
    assert close["separability"] == pytest.approx(0.5, abs=0.06)
    assert far["separability"] > 0.95
    assert far["distance"] == pytest.approx(float((moved["a"].mean(0) - moved["b"].mean(0)).norm()))
    mended = diagnostics.modality_gap(GapShift("a").fit(moved)(moved))["a|b"]
    assert mended["distance"] < 0.3 * far["distance"]


def test_bad_options_are_named():
    z = around(3)
    with pytest.raises(ValueError, match="bandwidth"):
        diagnostics.hoelder_divergence(z, {"m0": 0.1})
    with pytest.raises(ValueError, match="anchor 'x'"):
        diagnostics.conflicts(z, "x")
    with pytest.raises(ValueError, match="positive"):
        diagnostics.conflicts(z, "m0", weights={"m1": 0})
    with pytest.raises(ValueError, match="at least 4"):
        diagnostics.modality_gap({n: x[:3] for n, x in z.items()})
