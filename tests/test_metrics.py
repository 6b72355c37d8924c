"""Distances as torchmetrics metrics: against torchmetrics' own and naive references, over processes, saved, refused."""

import doctest
import importlib
import pickle
import sys

import numpy as np
import processes
import pytest
import torch
import torch.distributed as dist
from test_extractors import pictures, weights  # noqa: F401  a fixture
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance
from torchmetrics.image.fid import NoTrainInceptionV3
from torchmetrics.wrappers import FeatureShare

import unialign_gen.eval
from unialign_gen.errors import InputError
from unialign_gen.eval import CMMD, MIND, PRDC, FrechetDistance, FrechetInfinity, KernelDistance, functional
from unialign_gen.eval.extractors import channels
from unialign_gen.media import load_image

EVERY = (FrechetDistance, FrechetInfinity, KernelDistance, PRDC, MIND, CMMD)


def features(n, d=32, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return (torch.randn(n, d, generator=generator) @ mix).relu().add(shift)


def filled(kind, x, y, **options):
    metric = kind(encoder=None, **({"subset_size": 20} if kind is KernelDistance else {}) | options)
    for side, real in ((x, False), (y, True)):
        for part in side.split(13):
            metric.update(part, real=real)
    return metric


def flat(value):
    values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
    return [float(v) for v in values]


class Whole(torch.nn.Module):
    """An encoder of features that are there already, for torchmetrics' own classes."""

    num_features = 32

    def forward(self, x):
        return x


def test_fid_and_kid_are_torchmetrics_own():
    x, y = features(70), features(80, seed=1, shift=0.1)
    fid, kid = FrechetInceptionDistance(Whole()), KernelInceptionDistance(Whole(), subsets=1, subset_size=70)
    for metric in (fid.set_dtype(torch.float64), kid):
        metric.update(x.double(), real=False)
        metric.update(y.double()[:70], real=True)
    ours = filled(FrechetDistance, x, y[:70])
    assert float(ours.compute()) == pytest.approx(float(fid.compute()), rel=1e-4)
    mean, _ = filled(KernelDistance, x, y[:70], subset_size=None).compute()
    assert float(mean) == pytest.approx(float(kid.compute()[0]), rel=1e-4)


@pytest.mark.parametrize("kind", EVERY)
def test_a_metric_is_its_functional_twin(kind):
    x, y = features(70), features(80, seed=1, shift=0.1)
    twin = {
        FrechetDistance: functional.frechet_distance,
        FrechetInfinity: lambda a, b: (functional.frechet_infinity(a, b).value, functional.frechet_infinity(a, b).error),
        KernelDistance: lambda a, b: functional.kid(a, b, subset_size=20),
        PRDC: lambda a, b: tuple(functional.prdc(a, b)),
        MIND: functional.mind,
        CMMD: functional.cmmd,
    }[kind]
    assert flat(filled(kind, x, y).compute()) == pytest.approx(flat(twin(x, y)), rel=1e-9)


def naive_mind(x, y, directions=1000, seed=2020):
    generator = torch.Generator().manual_seed(seed)
    n = min(len(x), len(y))
    x = x if len(x) == n else x[torch.randperm(len(x), generator=generator)[:n]]
    y = y if len(y) == n else y[torch.randperm(len(y), generator=generator)[:n]]
    total = 0.0
    for u in torch.randn(directions, x.shape[1], generator=generator).double().numpy():
        u = u / np.linalg.norm(u)
        total += np.mean((np.sort(x.double().numpy() @ u) - np.sort(y.double().numpy() @ u)) ** 2)
    return 3 * x.shape[1] * total / directions


@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 64), (64, 50)])
def test_mind_and_cmmd_are_their_formulas(n, m):
    x, y = features(n), features(m, seed=1, shift=0.2)
    assert functional.mind(x, y) == pytest.approx(naive_mind(x, y), rel=1e-5)

    def kernel(a, b):
        return np.mean([[np.exp(-((p - q) ** 2).sum() / 200) for q in b.double().numpy()] for p in a.double().numpy()])

    expected = 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    assert functional.cmmd(x, y) == pytest.approx(expected, rel=1e-9)


def test_mind_needs_fewer_pictures_than_the_frechet_distance():
    """Two samples of one law beside a shifted one: at N = 100 and d = 64 MIND tells them apart further."""
    y = features(100, 64, 1)
    ratios = {
        f: f(features(100, 64, 2, 0.15), y) / f(features(100, 64, 3), y) for f in (functional.mind, functional.frechet_distance)
    }
    assert ratios[functional.mind] > 1.4 * ratios[functional.frechet_distance]


def shared_work(rank, world, folder):
    dist.init_process_group("gloo")
    x, y = features(70), features(80, seed=1, shift=0.1)
    found = {k.__name__: flat(filled(k, x[rank::world], y[rank::world]).compute()) for k in (FrechetDistance, PRDC, CMMD)}
    found["KernelDistance"] = flat(filled(KernelDistance, x[rank::world], y[rank::world], subset_size=None).compute())
    found["MIND"] = flat(filled(MIND, x[rank::world], y[:70][rank::world]).compute())
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_find_what_one_finds(world, tmp_path):
    processes.together(world, shared_work, tmp_path)
    x, y = features(70), features(80, seed=1, shift=0.1)
    expected = {k.__name__: flat(filled(k, x, y).compute()) for k in (FrechetDistance, PRDC, CMMD)}
    expected["KernelDistance"] = flat(filled(KernelDistance, x, y, subset_size=None).compute())
    expected["MIND"] = flat(filled(MIND, x, y[:70]).compute())
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("kind", EVERY)
def test_what_was_seen_is_saved_and_goes_on(kind, tmp_path):
    x, y = features(70), features(80, seed=1, shift=0.1)
    half = filled(kind, x[:40], y[:50])
    torch.save(half.state_dict(), tmp_path / "state.pt")
    fresh = filled(kind, x[:2], y[:2])
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    fresh.update(x[40:], real=False)
    fresh.update(y[50:], real=True)
    assert flat(fresh.compute()) == pytest.approx(flat(filled(kind, x, y).compute()), rel=1e-9)
    again = pickle.loads(pickle.dumps(fresh))
    assert flat(again.compute()) == pytest.approx(flat(fresh.compute()))
    fresh.reset()
    with pytest.raises(InputError, match="pictures"):
        fresh.compute()


@pytest.mark.parametrize("kind", EVERY)
def test_real_pictures_can_be_kept_over_a_reset(kind):
    x, y = features(70), features(80, seed=1, shift=0.1)
    metric = filled(kind, features(30, seed=5), y, reset_real_features=False)
    metric.reset()
    metric.update(x, real=False)
    assert flat(metric.compute()) == pytest.approx(flat(filled(kind, x, y).compute()), rel=1e-9)


def test_pictures_go_through_the_encoder_and_equal_torchmetrics(weights, tmp_path):  # noqa: F811
    """The same weights, the original's resize; features within rounding, KID of both sets within 1e-4 of its size."""
    files = pictures(tmp_path / "set", 8, ((64, 64),))
    x = torch.stack([channels(load_image(f)) for f in files])
    theirs = KernelInceptionDistance(NoTrainInceptionV3("inception", ["2048"], str(weights), False), subsets=1, subset_size=4)
    ours = KernelDistance(weights=weights, resize="tf1", subset_size=None)
    for metric in (theirs, ours):
        metric.update(x[:4], real=True)
        metric.update(x[4:] // 2, real=False)
    expected = float(theirs.compute()[0])
    assert float(ours.compute()[0]) == pytest.approx(expected, rel=1e-4)
    assert not any("encoder" in name for name in ours.state_dict())
    with pytest.raises(InputError, match="bytes"):
        ours.update(x / 255, real=True)


def test_metrics_share_one_encoder():
    calls = []

    class Mean(torch.nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x.double().flatten(1)[:, :5]

    net = Mean()
    both = FeatureShare([FrechetDistance(net), KernelDistance(net, subset_size=8), PRDC(net)])
    x = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    both.update(x, real=True)
    y = x.flip(0) // 2
    both.update(y, real=False)
    assert calls == [20, 20]
    assert set(both.compute()) >= {"FrechetDistance", "precision"}


def test_kept_statistics_stand_for_pictures():
    x, y = features(70), features(80, seed=1, shift=0.1)
    whole, metric = filled(FrechetDistance, x, y), FrechetDistance(encoder=None)
    metric.update(whole.moments(real=True), real=True)
    metric.update(x, real=False)
    assert float(metric.compute()) == pytest.approx(float(whole.compute()), rel=1e-9)


def test_too_few_pictures_are_refused_or_said():
    x = features(70)
    with pytest.warns(UserWarning, match="20 pictures for 32 features"):
        filled(FrechetDistance, x[:20], x).compute()
    for kind, n, words in (
        (FrechetDistance, 1, "at least two"),
        (FrechetInfinity, 7, "at least 8"),
        (KernelDistance, 19, "do not fit"),
        (PRDC, 5, "too few"),
        (MIND, 1, "at least 2"),
        (CMMD, 1, "at least 2"),
    ):
        with pytest.raises(InputError, match=words):
            filled(kind, x[:n], x).compute()
    for function in (functional.frechet_distance, functional.kid, functional.prdc, functional.mind, functional.cmmd):
        for bad, words in ((x * torch.nan, "NaN"), (x[:, :5], "width"), (x[0], "rows")):
            with pytest.raises(InputError, match=words):
                function(bad, x)
    with pytest.raises(InputError, match="need an encoder"):
        FrechetDistance(encoder=None).update(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), real=True)


@pytest.mark.parametrize("name", ["kid.kernel_distance", "frechet.frechet_of_features", "moments.Source", "manifold.manifold"])
def test_names_of_the_first_edition_go_on_with_a_warning(name):
    module, _, attribute = name.partition(".")
    sys.modules.pop("unialign_gen.eval.manifold", None)  # it warns when it is imported

    def use():
        return getattr(importlib.import_module(f"unialign_gen.eval.{module}"), attribute)

    with pytest.warns(FutureWarning, match="is now called"):
        assert callable(use())


MODULES = ("eval.metrics", "eval.functional", "eval.gap", "eval.groups", "eval.search", "retrieval")


@pytest.mark.parametrize("module", [f"unialign_gen.{m}" for m in MODULES])
def test_every_public_name_has_an_example_that_runs(module):
    found = importlib.import_module(module)
    finder = doctest.DocTestFinder(exclude_empty=False)
    for name in found.__all__:
        value = getattr(found, name)
        tests = [
            t
            for t in finder.find(value, name, globs=vars(importlib.import_module(value.__module__)) | {name: value})
            if t.examples
        ]
        assert tests, name
        assert sum(doctest.DocTestRunner().run(t).failed for t in tests) == 0, name
    if module.endswith("metrics"):
        assert unialign_gen.eval.__all__ == found.__all__
