"""What every objective shares: typed options, checks before a batch, temperatures, derivatives, precision, functions."""

import doctest
import importlib
import inspect
import math
import pkgutil
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from embeddings import THREE, batch

from unialign_gen import diagnostics, objectives
from unialign_gen.errors import InputError
from unialign_gen.notes import collected
from unialign_gen.objectives import (
    OBJECTIVES,
    PMRL,
    SCALAR,
    TRIANGLE,
    AnchoredInfoNCE,
    CauchySchwarz,
    InfoNCE,
    SigLIP,
    Symile,
    UniAlign,
    build,
    functional,
    kernel,
    query_weighted_scores,
    uniformity,
)
from unialign_gen.objectives.alignment import anchor_alignment

# Options.


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unialign", {"tau": True}, "tau is a finite number above 0, got True"),
        ("unialign", {"tau": math.nan}, "tau is a finite number above 0, got nan"),
        ("unialign", {"tau": [0.07]}, "tau is a finite number above 0"),
        ("unialign", {"tau_centroid": 0}, "tau_centroid is a finite number above 0, got 0"),
        ("unialign", {"tau_alignment": -1}, "tau_alignment is 'tau' or a finite number above 0 or null, got -1"),
        ("unialign", {"detach_anchor": "no"}, "detach_anchor is true or false, got 'no'"),
        ("unialign", {"alignment_weight": math.inf}, "alignment_weight is a finite number at least 0"),
        ("unialign", {"uniformity_geometry": "flat"}, "uniformity_geometry is 'euclidean' or 'geodesic', got 'flat'"),
        ("unialign", {"centroid_weights": {"image": -1}}, "centroid_weights is a mapping to a finite number at least 0"),
        ("unialign", {"anchor": 3}, "anchor is a name, got 3"),
        ("unialign", {"uniformity_weight": 0, "alignment_weight": 0, "volume_weight": 0}, "all terms are switched off"),
        (
            "unialign",
            {"uniformity_weight": 0, "alignment_weight": 0, "centroid_uniformity": False, "volume_alignment": False},
            "all terms are switched off",
        ),
        ("modgap", {"infonce_weight": 0, "alignment_weight": 0, "uniformity_weight": 0}, "all terms are switched off"),
        ("cauchy_schwarz", {"infonce_weight": 0, "divergence_weight": 0}, "all terms are switched off"),
        ("gram", {"smoothing": 1}, r"smoothing is a finite number in \[0, 1\), got 1"),
        ("infonce", {"weights": {"image->text": "much"}}, "weights is a mapping"),
        ("symile", {"seed": 0.5}, "seed is a whole number, got 0.5"),
        ("unialign", {"tao": 1}, "no option 'tao': choose from anchor, tau"),
        ("unialing", {}, "unknown objective 'unialing': choose from unialign"),
    ],
)
def test_a_bad_option_is_one_clear_line(name, options, message):
    with pytest.raises(InputError, match=message) as error:
        build(name, **options)
    assert "\n" not in str(error.value)


def test_numbers_are_what_a_person_means_and_repr_shows_them():
    loss = build("unialign", tau="7e-2", volume_weight=1)
    assert (loss.tau, loss.volume_weight) == (0.07, 1.0)
    assert "tau=0.07" in repr(loss)
    assert "tau_alignment='tau'" in repr(loss)
    for name in OBJECTIVES:
        shown = repr(build(name))
        assert all(f"{option}=" in shown for option in inspect.signature(OBJECTIVES[name]).parameters), name


@pytest.mark.parametrize(
    ("loss", "names", "message"),
    [
        (UniAlign(), ["text", "audio"], "the anchor 'image' is not among"),
        (AnchoredInfoNCE("video"), THREE, "the anchor 'video'"),
        (CauchySchwarz("video"), THREE, "the anchor 'video'"),
        (SCALAR("caption"), THREE, "the anchor 'caption'"),
        (TRIANGLE(), ["text", "image"], "3 modalities are needed"),
        (InfoNCE(), ["text"], "at least 2 modalities"),
        (InfoNCE(weights={"image->smell": 1}), THREE, "no pairs of"),
        (InfoNCE(weights={"image->text": 0, "text->image": 0}), ["image", "text"], "weight 0"),
        (UniAlign(centroid_weights={"image": 1, "text": 2}), THREE, "centroid_weights are for"),
    ],
)
def test_modalities_are_checked_before_the_first_batch_and_with_it(loss, names, message):
    with pytest.raises(InputError, match=message):
        loss.check_modalities(names)
    with pytest.raises(InputError, match=message):
        loss(batch(names=names))
    assert UniAlign().check_modalities(THREE) is None


OWN = """
import torch
from unialign_gen.objectives import Objective, prepare

class Cosine(Objective):
    def __init__(self, power: float = 1.0):
        super().__init__()
        self.power = power

    def terms(self, batch):
        return {"cosine": (1 - (batch.z["image"] * batch.z["text"]).sum(1)).mean() ** self.power}

class Needs(torch.nn.Module):
    def __init__(self, tau):
        super().__init__()

some = 3
"""


def test_an_objective_of_ones_own_by_file_and_by_module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN)
    z = batch()
    expected = (1 - F.cosine_similarity(z["image"], z["text"])).mean() ** 2
    assert torch.allclose(build(f"file:{tmp_path}/mine.py:Cosine", power=2)(z), expected)
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.allclose(build("mine:Cosine", power=2).parts(z)["cosine"], expected)
    for name, options, message in [
        (f"file:{tmp_path}/other.py:Cosine", {}, "no such Python file"),
        (f"file:{tmp_path}/mine.py:Sine", {}, "'Sine' is no class"),
        ("mine:some", {}, "'some' is no class"),
        ("nowhere:Cosine", {}, "cannot be imported: ModuleNotFoundError"),
        ("mine:Cosine", {"tau": 1}, "no option 'tau'"),
        ("mine:Needs", {}, "tau"),
    ]:
        with pytest.raises(InputError, match=message):
            build(name, **options)


# Parts.


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_add_up_to_the_loss(name):
    loss, z = build(name).eval(), batch()
    parts = loss.parts(z)
    assert parts
    assert all(p.ndim == 0 for p in parts.values())
    assert torch.equal(loss.total(parts), loss(z))


@pytest.mark.parametrize("name", functional.__all__)
def test_functions_equal_their_classes(name):
    z, masks = batch(), {"audio": torch.arange(8) > 1}
    assert torch.allclose(getattr(functional, name)(z, masks), build(name).eval()(z, masks), rtol=1e-6)
    assert "learnable" not in inspect.signature(getattr(functional, name)).parameters
    with pytest.raises(InputError, match="by keyword"):
        getattr(functional, name)(z, masks, wrong=1)


def test_every_objective_has_its_function():
    assert set(functional.__all__) == set(OBJECTIVES)


# Temperatures.


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if "learnable" in inspect.signature(OBJECTIVES[n]).parameters])
def test_learnt_temperature_as_module_and_as_tensor(name):
    """The parameter's gradient equals finite differences, and that through a tensor of one's own, by the chain rule."""
    loss, z = build(name, tau=0.3, learnable=True).double().eval(), batch()
    (grad,) = torch.autograd.grad(loss(z), [loss.temperature.log_scale])
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (by_tau,) = torch.autograd.grad(getattr(functional, name)(z, tau=tau), [tau])
    assert float(grad) == pytest.approx(-float(by_tau) * 0.3, rel=1e-5)  # log_scale = -log tau
    step = 1e-6
    up, down = (float(getattr(functional, name)(z, tau=0.3 + s)) for s in (step, -step))
    assert float(by_tau) == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_a_temperature_at_its_cap_comes_down_again():
    torch.manual_seed(0)
    z = {"a": torch.randn(64, 8), "b": torch.randn(64, 8)}  # unrelated pairs: the best scale is small
    loss = InfoNCE(tau=0.0101, learnable=True)
    with torch.no_grad():
        loss.temperature.log_scale += 0.02  # a step over the cap
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        loss(z).backward()
        assert float(loss.temperature.log_scale.grad) > 0
        optimiser.step()
    assert float(loss.temperature.log_scale.detach()) < math.log(100) - 0.5


def test_after_step_clamps_the_parameter_and_a_start_above_it_is_said():
    with collected() as notes:
        loss = InfoNCE(tau=0.005, learnable=True)
    assert [n.kind for n in notes] == ["clamped"]
    with torch.no_grad():
        loss.temperature.log_scale += 1
    loss.after_step()
    assert float(loss.temperature.log_scale.detach()) == pytest.approx(math.log(100))
    free = Symile(tau=1e-4)  # not held, as in its authors' code
    free.after_step()
    assert float(free.temperature.log_scale.detach()) == pytest.approx(-math.log(1e-4))
    two = loss(batch(dtype=torch.float32)) + loss(batch(dtype=torch.float32))
    with torch.no_grad():
        loss.temperature.log_scale.data += 1  # clamped again at the next call, which must not break this graph
    loss(batch(dtype=torch.float32))
    two.backward()


def test_siglip_learns_its_bias():
    z, loss = batch(), SigLIP(tau=0.3, bias=-1.0).double()
    (grad,) = torch.autograd.grad(loss(z), [loss.bias])
    up, down = (float(functional.siglip(z, tau=0.3, bias=-1.0 + s)) for s in (1e-6, -1e-6))
    assert float(grad) == pytest.approx((up - down) / 2e-6, rel=1e-5)


# Random views.


def test_symile_shuffles_anew_in_training_and_goes_on_after_a_restart():
    z, loss = batch(), Symile(tau=0.3)
    values = [float(loss(z)) for _ in range(3)]
    assert len(set(values)) == 3
    again = Symile(tau=0.3)
    again.load_state_dict(loss.state_dict() | {"calls": torch.tensor(1)})
    assert float(again(z)) == values[1]
    assert float(loss.eval()(z)) == float(loss(z))


def test_scalars_masked_view_begins_whole_and_drops_one_modality_in_half_of_the_samples():
    z, loss = batch(b=400), SCALAR(steps=10)
    assert float(loss.parts(z)["masked view"]) == pytest.approx(0, abs=1e-12)
    for _ in range(10):
        loss.parts(z)
    there = torch.ones(400, 2, dtype=torch.bool)
    left = loss.some(there)
    assert left.sum(1).min() == 1
    assert float((left.sum(1) == 1).double().mean()) == pytest.approx(0.5, abs=0.08)
    assert float((~left).double().mean(0)[0]) == pytest.approx(0.25, abs=0.07)
    assert float(loss.parts(z)["masked view"]) > 0
    assert "masked view" not in loss.eval().parts(z)
    single = torch.tensor([[True, False]]).repeat(400, 1)
    assert torch.equal(loss.some(single), single)  # nothing is taken from a sample with one modality


def test_masked_view_term_equals_its_formula():
    z, loss = batch(), SCALAR(masked=0.999, steps=1e-9)
    loss.calls += 1
    t, rest = F.normalize(z["text"]), [F.normalize(z["image"]), F.normalize(z["audio"])]
    left = loss.some(torch.ones(8, 2, dtype=torch.bool))
    loss.calls -= 1
    expected = 0.0
    for i in range(8):
        own = [x[i] for k, x in enumerate(rest) if left[i, k]]
        views = []
        for kept in (own, [x[i] for x in rest]):
            w = (torch.stack([t[i] @ x for x in kept]) / 0.1).softmax(0)
            views.append(F.normalize(sum(a * x for a, x in zip(w, kept, strict=True)), dim=0))
        expected += 1 - views[0] @ views[1] + (t[i] @ views[0] - t[i] @ views[1]) ** 2
    assert float(loss.parts(z)["masked view"]) == pytest.approx(float(expected) / 8, rel=1e-9)


def test_query_weighted_scores_equal_their_formula_with_missing_modalities():
    z, mask = batch(), torch.arange(8) != 3
    t, rest = F.normalize(z["text"]), [F.normalize(z["image"]), F.normalize(z["audio"])]
    got = query_weighted_scores(z["text"][:4], [z["image"], z["audio"]], 0.2, [None, mask])
    for i in range(4):
        for j in range(8):
            own = [rest[0][j], rest[1][j]][: 2 if mask[j] else 1]
            w = (torch.stack([t[i] @ x for x in own]) / 0.2).softmax(0)
            middle = F.normalize(sum(a * x for a, x in zip(w, own, strict=True)), dim=0)
            assert float(got[i, j]) == pytest.approx(float(t[i] @ middle), abs=1e-9)


# Derivatives.


@pytest.mark.parametrize("loss", [build(n).double().eval() for n in OBJECTIVES], ids=list(OBJECTIVES))
def test_second_derivatives_are_refused(loss):
    z = {n: x.requires_grad_() for n, x in batch().items()}
    (first,) = torch.autograd.grad(loss(z), z["text"], create_graph=True)
    assert torch.allclose(first, torch.autograd.grad(loss(z), z["text"])[0])
    with pytest.raises(InputError, match="first derivatives only"):
        torch.autograd.grad(first[0, 0], z["text"], allow_unused=True)
    with pytest.raises(InputError, match="first derivatives only"):
        torch.autograd.grad(loss(z), z["text"], create_graph=True)[0].square().sum().backward()


def test_second_derivatives_of_alignment_and_volume_are_right():
    x, y = (batch(b=4)[n].requires_grad_() for n in ("image", "text"))
    assert torch.autograd.gradgradcheck(lambda a, b: anchor_alignment(a, [b], geodesic=True), (x, y))
    assert torch.autograd.gradgradcheck(lambda a, b: objectives.gram_volume([a, b]).sum(), (x, y))


# Precision.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_half_precision_inputs_are_computed_in_full(name, dtype):
    """Of the numbers that it is given, an objective's value is right to 1e-4, and its gradient comes in the inputs' type."""
    z = {n: x.to(dtype).requires_grad_() for n, x in batch(b=32, d=16).items()}
    loss = build(name).eval()
    value = loss(z)
    value.backward()
    exact = build(name).double().eval()({n: x.detach().double() for n, x in z.items()})
    assert float(value.detach()) == pytest.approx(float(exact), rel=1e-4, abs=1e-4)
    assert all(x.grad is None or (x.grad.dtype == dtype and x.grad.isfinite().all()) for x in z.values())


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_rounding_to_half_precision_moves_the_loss_less_than_its_bound(dtype, digits):
    """A unit vector moves by at most 2^-digits, a cosine by twice that; a log-sum-exp by no more than its largest term."""
    z = batch(b=64, d=32)
    moved = {n: x.to(dtype).double() for n, x in z.items()}
    cosine = 2 * 2**-digits
    for tau in (0.07, 0.5):
        assert abs(uniformity(z["text"], tau) - uniformity(moved["text"], tau)) < cosine / tau**2
        assert abs(InfoNCE(tau)(z) - InfoNCE(tau)(moved)) < 2 * cosine / tau


@pytest.mark.parametrize("name", ["unialign", "symile", "siglip", "scalar"])  # one of each kind of kernel; seconds each
def test_compiled_equals_eager(name):
    z = batch(dtype=torch.float32)
    compiled = torch.compile(build(name).eval(), backend="aot_eager")
    one, other = ({n: x.clone().requires_grad_() for n, x in z.items()} for _ in range(2))
    value, expected = compiled(one), build(name).eval()(other)
    value.backward()
    expected.backward()
    assert torch.allclose(value, expected)
    for n in z:
        assert (one[n].grad is None and other[n].grad is None) or torch.allclose(one[n].grad, other[n].grad, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_tiles_side_by_side_equal_tiles_in_a_row(threads, monkeypatch):
    monkeypatch.setattr(kernel, "TILE", 16)
    monkeypatch.setattr(kernel, "SMALL", 4)
    z = batch(b=50)["text"].requires_grad_()
    (expected,) = torch.autograd.grad(uniformity(z, 0.5), z)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs = [torch.autograd.grad(uniformity(z, 0.5), z)[0] for _ in range(3)]
        with torch.inference_mode():
            assert torch.allclose(uniformity(z.detach().clone(), 0.5), uniformity(z, 0.5).detach())
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(runs[0], expected)
    assert all(torch.equal(r, runs[0]) for r in runs)  # to the bit


@pytest.mark.parametrize("step", [0.0, 0.5, 5.0])
def test_rows_that_share_a_shift_and_rows_that_cannot_give_the_same_sums(step):
    """At a low temperature the largest terms of a tile's rows lie far apart: each then has its own shift."""
    terms = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)) + step * torch.arange(40)[:, None]
    lse = kernel.RunningLse(80, terms)
    lse.add_both_ways(slice(0, 40), slice(40, 80), terms)
    assert kernel.near(torch.cat([terms.amax(1), terms.amax(0)])) == (step < 1)
    exact = torch.cat([terms.double().logsumexp(1), terms.double().logsumexp(0)])
    assert torch.allclose(lse.value().double(), exact, atol=1e-5, rtol=1e-6)


def test_a_tournament_holds_every_pair_once():
    for count in (1, 2, 5, 8):
        assert sorted(kernel.tournament(count)) == [(i, j) for i in range(count) for j in range(i, count)]


@pytest.mark.parametrize("symmetric", [True, False])
def test_pairs_that_share_a_block_go_one_after_the_other_in_their_order(symmetric):
    pairs = kernel.tournament(7)
    running, began = set(), []

    def work(i, j):
        blocks = {i, j} if symmetric else {i}
        assert not running & blocks
        running.update(blocks)
        began.append((i, j))
        time.sleep(0.001)
        running.difference_update(blocks)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        kernel.each(work, pairs, symmetric, torch.device("cpu"))
        with pytest.raises(ZeroDivisionError):  # of one thread, and nobody waits for ever
            kernel.each(lambda i, j: 1 // (i - 3), pairs, symmetric, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    for block in range(7):
        mine = [p for p in pairs if block in (p if symmetric else p[:1])]
        assert [p for p in began if p in mine] == mine


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_kept_for_the_backward_changes_nothing(name, monkeypatch):
    """Kept logits and logits that are computed again give the same gradients, twice from one graph too."""
    found = []
    for kept in (kernel.KEPT, 0):
        monkeypatch.setattr(kernel, "KEPT", kept)
        z = {n: x.requires_grad_() for n, x in batch(b=20).items()}
        value = build(name).double().eval()(z)
        both = [torch.autograd.grad(value, list(z.values()), retain_graph=True, allow_unused=True) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True) if a is not None)
        found.append([value, *(g for g in both[0] if g is not None)])
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*found, strict=True))


# The package.


def modules():
    return [importlib.import_module(f"unialign_gen.objectives.{m.name}") for m in pkgutil.iter_modules(objectives.__path__)]


def test_every_public_name_has_an_example_that_runs():
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    for module in [*modules(), diagnostics]:
        for test in finder.find(module):
            assert runner.run(test).failed == 0, test.name
    for module in (objectives, functional, diagnostics):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                assert ">>> " in (thing.__doc__ or ""), name


def test_needs_torch_alone():
    code = "import sys, unialign_gen.objectives; print([m for m in %r if m in sys.modules])"
    heavy = ["diffusers", "transformers", "gradio", "typer", "pydantic", "accelerate", "PIL", "av"]
    done = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pmrl_with_the_signs_of_the_decomposition():
    """The first term is the same; the second is InfoNCE of the leading vectors with whatever sign they have."""
    z = batch()
    fixed, free = PMRL(0.3, 0.2).parts(z), PMRL(0.3, 0.2, fix_signs=False).parts(z)
    assert torch.equal(fixed["intra"], free["intra"])
    u = torch.linalg.svd(torch.stack([F.normalize(x) for x in z.values()], 2), full_matrices=True)[0][..., 0]
    assert float(free["inter"]) == pytest.approx(float(F.cross_entropy(u @ u.T / 0.2, torch.arange(8))), rel=1e-9)
