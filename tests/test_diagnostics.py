"""Diagnostics against autograd, closed forms, scikit-learn-free references and known distributions."""

import math

import pytest
import torch
import torch.nn.functional as F

from unialign_gen import diagnostics
from unialign_gen.errors import InputError


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


def test_bad_options_are_named():
    z = around(3)
    with pytest.raises(InputError, match="bandwidth"):
        diagnostics.hoelder_divergence(z, {"m0": 0.1})
    with pytest.raises(InputError, match="anchor 'x'"):
        diagnostics.conflicts(z, "x")
    with pytest.raises(InputError, match="positive"):
        diagnostics.conflicts(z, "m0", weights={"m1": 0})
    with pytest.raises(InputError, match="at least 4"):
        diagnostics.modality_gap({n: x[:3] for n, x in z.items()})


def test_the_bound_is_given_only_where_it_holds():
    z = around(3, spread=3.0)
    assert diagnostics.conflicts(z, "m0").bound is not None
    assert diagnostics.conflicts(z, "m0", weights={"m1": 2.0, "m2": 2.0}).bound is not None
    skewed = diagnostics.conflicts(z, "m0", weights={"m1": 1.0, "m2": 0.001})
    assert skewed.bound is None  # chi is near 0 there, far below what eq 7 would say
    assert "bound" not in skewed.summary()
    assert float(skewed.chi.mean()) < diagnostics.corollary_2_bound(3, skewed.mean_cosine)
    assert diagnostics.conflicts(z, "m0", masks={"m1": torch.arange(50) > 3}).bound is None
    for rows in (5, 20, 50):  # mu is that of the measured samples
        some = diagnostics.conflicts(z, "m0", rows=rows)
        assert float(some.chi.mean()) >= some.bound - 1e-12
    close = diagnostics.conflicts(around(4, spread=1e-9), "m0")
    assert float(close.chi.min()) >= 0


def test_masks_equal_leaving_the_rows_out():
    z, mask = around(3), torch.arange(50) < 30
    junk = dict(z, m1=torch.where(mask[:, None], z["m1"], math.nan))
    cut = {n: x[:30] for n, x in z.items()}
    everywhere = dict.fromkeys(z, mask)
    for measure in (diagnostics.mean_cosine, diagnostics.hoelder_divergence):
        assert measure(junk, masks=everywhere) == pytest.approx(measure(cut), abs=1e-12)
    assert diagnostics.modality_gap(junk, masks=everywhere) == diagnostics.modality_gap(cut)
    assert diagnostics.alignment(z["m0"], junk["m1"], mask=mask) == pytest.approx(diagnostics.alignment(cut["m0"], cut["m1"]))
    assert diagnostics.uniformity(junk["m1"], mask=mask) == pytest.approx(diagnostics.uniformity(cut["m1"]))
    got, want = diagnostics.conflicts(junk, "m0", masks=everywhere), diagnostics.conflicts(cut, "m0")
    assert torch.allclose(got.zeta, want.zeta)
    assert torch.allclose(got.chi, want.chi)


def test_conflicts_of_a_sample_are_over_what_it_has():
    """Pull and push by autograd, where the second modality lacks the last twenty samples."""
    z, mask, tau = around(3), torch.arange(50) < 30, 0.2
    anchor = z["m0"].clone().requires_grad_()
    (pull,) = torch.autograd.grad((anchor * (z["m1"] * mask[:, None] + z["m2"])).sum() / tau, anchor)
    lse = (anchor[:30] @ z["m1"][:30].T / tau).logsumexp(1).sum() + (anchor @ z["m2"].T / tau).logsumexp(1).sum()
    (push,) = torch.autograd.grad(lse, anchor)
    got = diagnostics.conflicts(z, "m0", tau, masks={"m1": mask})
    assert torch.allclose(got.zeta, F.cosine_similarity(pull, push), atol=1e-9)
    assert torch.allclose(got.chi, 1 - pull.norm(dim=1) * tau / (1.0 + mask.double()), atol=1e-9)


def test_separability_is_a_half_where_sets_mix_and_its_interval_stays_within_reach():
    z = unit(400, 12)
    same = diagnostics.modality_gap({"a": z, "b": z.clone()})["a|b"]
    assert same["separability"] == 0.5
    found = [diagnostics.modality_gap({"a": unit(400, 12, s), "b": unit(400, 12, 100 + s)})["a|b"] for s in range(20)]
    assert sum(f["separability"] for f in found) / 20 == pytest.approx(0.5, abs=0.02)
    assert sum(f["interval"][0] <= 0.5 <= f["interval"][1] for f in found) >= 17
    apart = diagnostics.modality_gap({"a": z, "b": -z.abs()})["a|b"]
    for gap in (*found, same, apart):
        low, high = gap["interval"]
        assert 0 <= low <= gap["separability"] <= high <= 1


def test_masks_that_leave_nothing_are_named():
    z, none = around(3), torch.zeros(50, dtype=torch.bool)
    for measure, message in [
        (lambda m: diagnostics.conflicts(z, "m0", masks=m), "no sample has 'm0' and another"),
        (lambda m: diagnostics.modality_gap(z, masks=m), "at least 4 samples with both"),
        (lambda m: diagnostics.hoelder_divergence(z, masks=m), "at least 2 samples of each modality"),
    ]:
        with pytest.raises(InputError, match=message):
            measure({"m0": none})
    with pytest.raises(InputError, match="no sample has two"):
        diagnostics.mean_cosine(z, {"m0": none, "m1": none})
    with pytest.raises(InputError, match="tau"):
        diagnostics.conflicts(z, "m0", tau=math.nan)
