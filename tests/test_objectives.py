"""Objectives against naive fp64 autograd written from the papers, finite differences, and properties."""

import itertools
import math
from functools import partial

import embeddings
import pytest
import torch
import torch.nn.functional as F
from embeddings import raw, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from unialign_gen.objectives import (
    GRAM,
    OBJECTIVES,
    PMRL,
    SCALAR,
    TRIANGLE,
    AnchoredInfoNCE,
    CauchySchwarz,
    InfoNCE,
    MeanOfOthers,
    ModGap,
    SigLIP,
    Symile,
    UniAlign,
    anchor_alignment,
    build,
    centroid,
    cross_volumes,
    gram_volume,
    kernel,
    uniformity,
)


def batch(m, b=12, d=7, dtype=torch.float64, spread=0.7):
    """m modalities around common points: positives are closer than negatives."""
    return {n: x.requires_grad_() for n, x in embeddings.batch(b, d, dtype, embeddings.FIVE[:m], spread).items()}


# The references below normalise, build whole matrices and leave everything to autograd.


def naive_uniformity(z, tau, geodesic=False):
    z = unit(z)
    out = 0.0
    for i in range(len(z)):
        others = torch.cat([z[:i], z[i + 1 :]])
        d2 = torch.arccos(others @ z[i]).square() if geodesic else (others - z[i]).square().sum(1)
        out = out + torch.log(torch.exp(-d2 / (2 * tau**2)).mean())
    return out / len(z)


def naive_unialign(z, tau, tau_c, w, uniform, aligned, geodesic=(False, False), tau_a=None):
    anchor = unit(z["image"])
    fixed = anchor.detach()
    others = [unit(z[n]) for n in z if n != "image"]
    uni = sum(naive_uniformity(x, tau, geodesic[0]) for x in z.values())
    if geodesic[1]:
        align = sum(torch.arccos((fixed * o).sum(1)).square().mean() for o in others) / len(others)
    else:
        align = sum((fixed - o).square().sum(1).mean() for o in others) / len(others)
    if tau_a is not None:
        align = align / (2 * tau_a**2)
    stack = torch.stack([fixed, *others], 1)
    vol = 0.0
    if uniform:
        vol = vol + naive_uniformity(stack.mean(1), tau_c, geodesic[0])
    if aligned:
        vol = vol + torch.linalg.det(stack @ stack.mT).sqrt().mean()
    return w[0] * uni + w[1] * align + w[2] * vol


def naive_infonce(z, tau, weights):
    total = 0.0
    for m, n in itertools.permutations(z, 2):
        logits = unit(z[m]) @ unit(z[n]).T / tau
        total = total + weights.get((m, n), 1.0) * F.cross_entropy(logits, torch.arange(len(logits)))
    return total / sum(weights.get(pair, 1.0) for pair in itertools.permutations(z, 2))


def cross(logits, smoothing=0.0):
    """Cross-entropy with label smoothing, the mean of both directions."""
    target = torch.arange(len(logits))
    return sum(F.cross_entropy(x, target, label_smoothing=smoothing) for x in (logits, logits.T)) / 2


def naive_anchored(z, tau, anchor="image"):
    return sum(cross(unit(z[anchor]) @ unit(z[n]).T / tau) for n in z if n != anchor) / (len(z) - 1)


def naive_tuple(z, tau, smoothing, size, anchor="text"):
    a = unit(z[anchor])
    rest = [unit(z[n]) for n in z if n != anchor]
    sizes = torch.stack([torch.stack([size([a[i], *(r[j] for r in rest)]) for j in range(len(a))]) for i in range(len(a))])
    return cross(-sizes / tau, smoothing)


def volume_of(vectors):
    stack = torch.stack(vectors)
    return torch.linalg.det(stack @ stack.T).sqrt()


def area_of(vectors):
    u, v = vectors[1] - vectors[0], vectors[2] - vectors[0]
    return ((u @ u) * (v @ v) - (u @ v) ** 2).sqrt() / 2


def naive_pmrl(z, tau1, tau2):
    stack = torch.stack([unit(x) for x in z.values()], 2)
    u, s, _ = torch.linalg.svd(stack, full_matrices=False)
    lead = u[:, :, 0]
    lead = lead * torch.sign((lead * stack[:, :, 0]).sum(1, keepdim=True)).detach()
    target = torch.arange(len(s))
    return F.cross_entropy(s / tau1, torch.zeros_like(target)) + F.cross_entropy(lead @ lead.T / tau2, target)


def naive_modgap(z, tau, weights=(1, 1, 1)):
    u = {n: unit(x) for n, x in z.items()}
    pairs = list(itertools.combinations(u.values(), 2))
    contrast = sum(cross(x @ y.T / tau) for x, y in pairs) / len(pairs)
    distance = sum((x - y).square().sum(1).mean() for x, y in pairs) / len(pairs)
    middle = unit(sum(u.values()) / len(u))
    spread = torch.pdist(middle).pow(2).mul(-2).exp().mean().log()
    return weights[0] * contrast + weights[1] * distance + weights[2] * spread


def naive_symile(z, tau, seed=0):
    u = {n: unit(x) for n, x in z.items()}
    generator = torch.Generator().manual_seed(hash((seed, 0)))
    total = 0.0
    for a in u:
        others = [x[torch.randperm(len(x), generator=generator)] for n, x in u.items() if n != a]
        logits = u[a] @ math.prod(others[1:], start=others[0]).T
        own = math.prod(u.values()).sum(1)
        logits = torch.where(torch.eye(len(own)) > 0, own, logits)
        total = total + F.cross_entropy(logits / tau, torch.arange(len(own)))
    return total / len(u)


def naive_cauchy_schwarz(z, tau, sigma, weight):
    a, total = unit(z["image"]), 0.0

    def kernel(x, y):
        return torch.exp(-(x[:, None] - y[None]).square().sum(2) / (2 * sigma**2)).mean()

    for n in z:
        if n != "image":
            y = unit(z[n])
            apart = kernel(a, a).log() + kernel(y, y).log() - 2 * kernel(a, y).log()
            total = total + cross(a @ y.T / tau) + weight * apart
    return total


def naive_siglip(z, scale, bias):
    total, sign = 0.0, 2 * torch.eye(12, dtype=torch.float64) - 1
    for x, y in itertools.combinations([unit(x) for x in z.values()], 2):
        total = total - F.logsigmoid(sign * (scale * x @ y.T + bias)).sum() / len(x)
    return total


def naive_scalar(z, tau, tau_w, smoothing):
    t, rest = unit(z["text"]), torch.stack([unit(x) for n, x in z.items() if n != "text"], 1)  # (B, K, d)
    weights = (torch.einsum("id,jkd->ijk", t, rest) / tau_w).softmax(2)
    middle = torch.einsum("ijk,jkd->ijd", weights, rest)
    logits = torch.einsum("id,ijd->ij", t, middle / middle.norm(dim=2, keepdim=True)) / tau
    return cross(logits, smoothing)


def naive_mean_of_others(z, tau):
    u, total = {n: unit(x) for n, x in z.items()}, 0.0
    for m in u:
        rest = unit(sum(x for n, x in u.items() if n != m))
        total = total + cross(u[m] @ rest.T / tau)
    return total / len(u)


PAIRS = {("image", "text"): 2.0, ("text", "image"): 0.5}
CASES = {
    "unialign": (
        UniAlign(tau=0.5, tau_centroid=0.3, volume_weight=0.4),
        lambda z: naive_unialign(z, 0.5, 0.3, (1, 1, 0.4), True, True, tau_a=0.5),
    ),
    "unialign as printed": (
        UniAlign(tau=0.5, tau_centroid=0.3, volume_weight=0.4, tau_alignment=None),
        lambda z: naive_unialign(z, 0.5, 0.3, (1, 1, 0.4), True, True),
    ),
    "unialign geodesic": (
        UniAlign(tau=0.6, tau_centroid=0.3, uniformity_geometry="geodesic", alignment_geometry="geodesic"),
        lambda z: naive_unialign(z, 0.6, 0.3, (1, 1, 0.1), True, True, (True, True), tau_a=0.6),
    ),
    "unialign mixed": (
        UniAlign(
            tau=0.5,
            tau_alignment=0.8,
            uniformity_weight=0.3,
            alignment_weight=2,
            alignment_geometry="geodesic",
            centroid_uniformity=False,
        ),
        lambda z: naive_unialign(z, 0.5, 0.07, (0.3, 2, 0.1), False, True, (False, True), tau_a=0.8),
    ),
    "infonce": (InfoNCE(0.2, weights=PAIRS), lambda z: naive_infonce(z, 0.2, PAIRS)),
    "anchored": (AnchoredInfoNCE(tau=0.2), lambda z: naive_anchored(z, 0.2)),
    "gram": (GRAM(tau=0.2), lambda z: naive_tuple(z, 0.2, 0.1, volume_of)),
    "triangle": (TRIANGLE(tau=0.2), lambda z: naive_tuple(z, 0.2, 0.1, area_of)),
    "triangle without root": (
        TRIANGLE(tau=0.2, root=False),
        lambda z: naive_tuple(z, 0.2, 0.1, lambda vectors: 2 * area_of(vectors) ** 2),
    ),
    "pmrl": (PMRL(0.3, 0.2), lambda z: naive_pmrl(z, 0.3, 0.2)),
    "modgap": (
        ModGap(tau=0.2, infonce_weight=0.5, alignment_weight=2, uniformity_weight=3),
        lambda z: naive_modgap(z, 0.2, (0.5, 2, 3)),
    ),
    "symile": (Symile(tau=0.3, learnable=False).eval(), lambda z: naive_symile(z, 0.3)),
    "cauchy_schwarz": (
        CauchySchwarz(tau=0.2, bandwidth=0.7, divergence_weight=1.5),
        lambda z: naive_cauchy_schwarz(z, 0.2, 0.7, 1.5),
    ),
    "siglip": (SigLIP(tau=0.2, bias=-2, learnable=False), lambda z: naive_siglip(z, 5, -2)),
    "scalar": (SCALAR(tau=0.2, tau_weights=0.3).eval(), lambda z: naive_scalar(z, 0.2, 0.3, 0.1)),
    "mean_of_others": (MeanOfOthers(tau=0.2), lambda z: naive_mean_of_others(z, 0.2)),
}
SIZES = [(name, m) for name in CASES for m in (2, 3, 4, 5) if not name.startswith("triangle") or m == 3]


def both(loss, z):
    value = loss(z)
    return value, torch.autograd.grad(value, list(z.values()), allow_unused=True)


@pytest.mark.parametrize(("name", "m"), SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("tile", [5, 1024])
def test_value_and_gradient_equal_naive_autograd(name, m, dtype, tolerance, tile, monkeypatch):
    monkeypatch.setattr(kernel, "TILE", tile)
    monkeypatch.setattr(kernel, "BLOCK", tile * 12)
    loss, reference = CASES[name]
    value, grads = both(loss, batch(m, dtype=dtype))
    expected, expected_grads = both(reference, batch(m))
    assert value.item() == pytest.approx(expected.item(), rel=tolerance)
    for got, want in zip(grads, expected_grads, strict=True):
        assert ((got.double() - want).norm() / want.norm()).item() < tolerance


@pytest.mark.parametrize(("name", "m"), SIZES)
def test_gradient_equals_finite_differences(name, m):
    z = batch(m, b=4, d=6)
    loss, check = CASES[name][0], partial(torch.autograd.gradcheck, atol=1e-6, fast_mode=m > 3)
    if name.startswith("unialign"):
        # the detached anchor has a gradient on purpose that is not the derivative: only the others are moved
        fixed = {"image": z["image"].detach()}
        others = [n for n in z if n != "image"]
        assert check(lambda *x: loss(fixed | dict(zip(others, x, strict=True))), [z[n] for n in others])
    else:
        assert check(lambda *x: loss(dict(zip(z, x, strict=True))), list(z.values()))


def test_two_modalities_give_clip_loss():
    open_clip = pytest.importorskip("open_clip")
    z = {n: unit(x).float() for n, x in batch(2, b=20).items()}
    clip = open_clip.ClipLoss()(z["image"], z["text"], logit_scale=torch.tensor(1 / 0.07))
    assert AnchoredInfoNCE(tau=0.07)(z).item() == pytest.approx(clip.item(), rel=1e-5)
    assert InfoNCE(tau=0.07)(z).item() == pytest.approx(clip.item(), rel=1e-5)


# Missing modalities.


def test_masks_equal_the_batch_without_the_missing_rows():
    z = batch(3)
    mask = torch.tensor([True] * 7 + [False] * 5)
    kept = {n: x[:7] for n, x in z.items()}
    junk = dict(z, text=torch.where(mask[:, None], z["text"], math.nan))
    complete = (GRAM(), TRIANGLE(), PMRL())  # where one is missing the sample does not count
    others = [CASES[n][0] for n in ("infonce", "anchored", "modgap", "cauchy_schwarz", "siglip", "scalar", "mean_of_others")]
    for loss in (*complete, *others):
        masks = {"text": mask} if loss in complete else dict.fromkeys(z, mask)
        inputs = {n: x.detach().requires_grad_() for n, x in junk.items()}
        value, grads = both(lambda x, loss=loss, masks=masks: loss(x, masks), inputs)
        leaves = {n: x.detach().requires_grad_() for n, x in kept.items()}
        expected, expected_grads = both(loss, leaves)
        assert value.item() == pytest.approx(expected.item(), rel=1e-9)
        for got, want in zip(grads, expected_grads, strict=True):
            assert torch.isfinite(got).all()
            assert torch.allclose(got[:7], want, atol=1e-9)
            assert not got[7:].any()


def test_unialign_counts_what_is_there():
    z = batch(3)
    mask = torch.tensor([True] * 7 + [False] * 5)
    parts = UniAlign(tau=0.5, tau_centroid=0.5).parts(z, {"text": mask})
    assert parts["uniformity/text"].item() == pytest.approx(naive_uniformity(z["text"][:7], 0.5).item(), rel=1e-9)
    a, t, s = (unit(z[n]) for n in ("image", "text", "audio"))
    distances = [*(a - t)[:7].square().sum(1), *(a - s).square().sum(1)]
    assert parts["alignment"].item() == pytest.approx(sum(distances).item() / 19 / (2 * 0.5**2), rel=1e-9)
    three = torch.linalg.det(torch.stack([a, t, s], 1)[:7] @ torch.stack([a, t, s], 1)[:7].mT).sqrt()
    two = torch.linalg.det(torch.stack([a, s], 1)[7:] @ torch.stack([a, s], 1)[7:].mT).sqrt()
    assert parts["volume"].item() == pytest.approx(torch.cat([three, two]).mean().item(), rel=1e-9)
    middle = torch.cat([(a + t + s)[:7], (a + s)[7:]])
    assert parts["centroid_uniformity"].item() == pytest.approx(naive_uniformity(middle, 0.5).item(), rel=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_modality_that_no_sample_has_is_no_error(name):
    z = batch(3, dtype=torch.float32)
    value, grads = both(lambda x: build(name)(x, {"text": torch.zeros(12, dtype=torch.bool)}), z)
    assert torch.isfinite(value)
    assert all(g is None or torch.isfinite(g).all() for g in grads)


# Hard places.


def hard_batches():
    z = {n: x.detach() for n, x in batch(3, b=6, d=8, dtype=torch.float32).items()}
    same = z["image"][:1].expand(6, 8)
    yield "collapsed", {n: same.clone() for n in z}
    yield "perfectly aligned", {n: z["image"].clone() for n in z}
    yield "identical rows in one modality", dict(z, text=same.clone())
    yield "antipodal modalities", dict(z, text=-z["image"], audio=z["image"].clone())
    yield "antipodal samples", {n: torch.cat([x[:3], -x[:3]]) for n, x in z.items()}
    yield "two samples", {n: x[:2] for n, x in z.items()}
    yield "orthonormal modalities", {n: torch.eye(8)[i].expand(6, 8).clone() for i, n in enumerate(z)}


@pytest.mark.parametrize("tau", [0.01, 0.07])
@pytest.mark.parametrize("case", [name for name, _ in hard_batches()])
@pytest.mark.parametrize("name", [*OBJECTIVES, "geodesic"])
def test_values_and_gradients_are_finite_at_the_hard_places(name, case, tau):
    z = {n: x.requires_grad_() for n, x in dict(hard_batches())[case].items()}
    if name == "geodesic":
        loss = UniAlign(tau=tau, tau_centroid=tau, uniformity_geometry="geodesic", alignment_geometry="geodesic")
    elif name == "pmrl":
        loss = PMRL(tau, tau)
    else:
        loss = build(name, tau=tau)
    value, grads = both(loss, z)
    assert torch.isfinite(value)
    assert all(g is None or torch.isfinite(g).all() for g in grads)


def test_geodesic_slopes_near_alignment():
    """d^2 = angle^2: its derivative along the great circle is 2 angle, down to angles where arccos has no digits left."""
    for angle in (1e-3, 1e-2, 0.1, 0.3, 3.0):
        a = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
        t = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
        b = torch.stack([t.cos(), t.sin(), 0 * t])[None]
        value = anchor_alignment(a, [b], geodesic=True)
        assert value.item() == pytest.approx(angle**2, rel=1e-8)
        (slope,) = torch.autograd.grad(value, t)
        assert float(slope) == pytest.approx(2 * angle, rel=1e-6)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_volume_equals_the_determinant_and_has_a_finite_slope_near_zero(m):
    z = list(batch(m, d=9).values())
    stack = torch.stack([unit(x) for x in z], 1)
    assert torch.allclose(gram_volume(z), torch.linalg.det(stack @ stack.mT).sqrt(), atol=1e-9)
    for tiny in (0.0, 1e-6, 1e-3):
        near = [(z[0].detach() + tiny * x.detach()).requires_grad_() for x in z]
        gram_volume(near).sum().backward()
        assert all(torch.isfinite(x.grad).all() for x in near)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_cross_volumes_equal_every_determinant(m):
    z = [unit(x.detach()) for x in batch(m, b=9, d=8, dtype=torch.float32).values()]
    got = cross_volumes(z[0], z[1:])
    for i, j in itertools.product(range(9), range(9)):
        want = volume_of([z[0][i].double(), *(r[j].double() for r in z[1:])])
        assert float(got[i, j]) == pytest.approx(float(want), abs=1e-5)


# Properties.


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), name=st.sampled_from([n for n in CASES if n != "symile"]))  # its product knows axes
def test_rotation_of_space_changes_nothing(seed, name):
    z = {n: x.detach() for n, x in batch(3).items()}
    rotation, _ = torch.linalg.qr(raw(7, 7, seed))
    loss = CASES[name][0]
    assert float(loss({n: x @ rotation for n, x in z.items()})) == pytest.approx(float(loss(z)), rel=1e-8)


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(12)), name=st.sampled_from([n for n in CASES if n != "symile"]))  # it shuffles places
def test_order_of_samples_changes_nothing(order, name):
    z = {n: x.detach() for n, x in batch(3).items()}
    loss = CASES[name][0]
    assert float(loss({n: x[order] for n, x in z.items()})) == pytest.approx(float(loss(z)), rel=1e-8)


@settings(deadline=None, max_examples=15)
@given(
    order=st.permutations(["text", "audio", "video"]), name=st.sampled_from(["unialign", "anchored", "pmrl", "cauchy_schwarz"])
)
def test_names_of_the_other_modalities_change_nothing(order, name):
    z = {n: x.detach() for n, x in batch(4).items()}
    renamed = {"image": z["image"]} | {new: z[old] for new, old in zip(order, ["text", "audio", "video"], strict=True)}
    loss = CASES[name][0]
    assert float(loss(renamed)) == pytest.approx(float(loss(z)), rel=1e-8)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), tau=st.floats(0.05, 2), geodesic=st.booleans())
def test_collapse_is_the_worst_uniformity(seed, tau, geodesic):
    assert float(uniformity(raw(1, 8).expand(16, 8), tau, geodesic)) == pytest.approx(0, abs=1e-9)
    assert float(uniformity(raw(16, 8, seed), tau, geodesic)) < 0


def test_scale_of_the_input_changes_nothing():
    z = {n: x.detach() for n, x in batch(3).items()}
    for loss, _ in CASES.values():
        assert float(loss({n: 20 * x for n, x in z.items()})) == pytest.approx(float(loss(z)), rel=1e-9)


def test_autocast_does_not_reach_inside():
    z = {n: x.detach() for n, x in batch(3, dtype=torch.float32).items()}
    for loss, _ in CASES.values():
        with torch.autocast("cpu", torch.bfloat16):
            inside = {n: x.clone().requires_grad_() for n, x in z.items()}
            value = loss(inside)
        value.backward()
        outside = {n: x.clone().requires_grad_() for n, x in z.items()}
        expected, grads = both(loss, outside)
        assert torch.equal(value, expected)
        assert all(torch.equal(inside[n].grad, g) for n, g in zip(z, grads, strict=True))


def test_the_anchor_feels_its_own_uniformity_only():
    z = batch(3)
    loss = UniAlign(tau=0.5)
    (got,) = torch.autograd.grad(loss(z), [z["image"]])
    (alone,) = torch.autograd.grad(uniformity(z["image"], 0.5), [z["image"]])
    assert torch.allclose(got, alone, atol=1e-12)
    pulled = torch.autograd.grad(UniAlign(tau=0.5, detach_anchor=False)(z), [z["image"]])[0]
    assert not torch.allclose(pulled, alone)


def test_weighted_centroid():
    z = [x.detach() for x in batch(3).values()]
    want = unit(0.5 * unit(z[0]) + 0.3 * unit(z[1]) + 0.2 * unit(z[2]))
    assert torch.allclose(centroid(z, [5, 3, 2]), want)


# Errors.


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bad_input_gets_one_clear_line(name):
    z = {n: x.detach() for n, x in batch(3, dtype=torch.float32).items()}
    loss = build(name)
    nan = dict(z, audio=z["audio"].clone())
    nan["audio"][4, 2] = math.nan
    zero = dict(z, audio=z["audio"].clone())
    zero["audio"][3] = 0
    for given_, message in [
        ({n: x[:1] for n, x in z.items()}, "at least 2 samples"),
        ({"text": z["text"]}, "modalities are needed"),
        (dict(z, audio=z["audio"][:5]), "audio: 5 rows"),
        (dict(z, audio=z["audio"][:, :3]), "audio: 3 dimensions"),
        (dict(z, audio=z["audio"][0]), r"\(B, d\)"),
        (dict(z, audio=z["audio"].int()), "floating-point"),
        (nan, "audio: row 4 is NaN"),
        (zero, "audio: row 3 is zero"),
    ]:
        with pytest.raises(ValueError, match=message):
            loss(given_)
    with pytest.raises(ValueError, match="mask for"):
        loss(z, {"smell": torch.ones(12, dtype=torch.bool)})
    with pytest.raises(ValueError, match="bool"):
        loss(z, {"text": torch.ones(12)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_pairs_give_no_denormal_numbers(dtype):
    """Where exp would be one, arithmetic on it is slow; near terms are untouched and far ones stay beyond the last digit."""
    x = torch.linspace(-900, 0, 4000, dtype=dtype)
    found, exact = kernel.exp_(x.clone()), x.exp()
    assert float(found.min()) >= torch.finfo(dtype).tiny
    near = exact > 1e9 * torch.finfo(dtype).tiny
    assert torch.equal(found[near], exact[near])
    assert float((found - exact).abs().max()) < 1e9 * torch.finfo(dtype).tiny


def test_pair_weights_by_name_are_those_by_pair():
    """A YAML file has no tuples."""
    z = {name: torch.randn(6, 4) for name in ("image", "text", "audio")}
    by_pair = InfoNCE(weights={("image", "text"): 3.0, ("text", "audio"): 0.0})
    assert torch.equal(build("infonce", weights={"image->text": 3.0, "text->audio": 0.0})(z), by_pair(z))
    with pytest.raises(ValueError, match="written m->n"):
        build("infonce", weights={"image-text": 1.0})
