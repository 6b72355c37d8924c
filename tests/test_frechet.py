"""Distances of distributions against torch-fidelity, torchmetrics, scipy and closed forms, on the same features."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from unialign_gen.errors import InputError
from unialign_gen.eval import prdc as prdc_module
from unialign_gen.eval.figures import bootstrap, from_halves, halves
from unialign_gen.eval.frechet import frechet_distance, frechet_infinity
from unialign_gen.eval.kid import kid
from unialign_gen.eval.moments import FeatureSource, Moments, moments
from unialign_gen.eval.prdc import prdc, radii

SOURCE = FeatureSource("net-1", "bicubic")


def features(n, d, seed=0, shift=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return (torch.randn(n, d, generator=generator) @ mix).relu().add(shift).to(dtype)


def fidelity_fid(x, y):
    return fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)[
        "frechet_inception_distance"
    ]


@pytest.mark.parametrize(("n", "m", "d"), [(400, 500, 64), (40, 60, 128), (40, 500, 128), (2, 3, 16)])
def test_frechet_is_torch_fidelitys_by_every_route(n, m, d):
    x, y = features(n, d), features(m, d, 1, 0.1)
    expected = fidelity_fid(x.double(), y.double())
    a, b = moments([x], SOURCE), moments([y], SOURCE)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(a, b), rel=1e-7)


def test_frechet_is_torchmetrics_and_scipys():
    from torchmetrics.image.fid import _compute_fid

    x, y = features(300, 32, dtype=torch.float64), features(300, 32, 1, 0.2, torch.float64)
    ours = frechet_distance(x, y)
    assert ours == pytest.approx(float(_compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))), rel=1e-4)
    root = scipy.linalg.sqrtm((torch.cov(x.T) @ torch.cov(y.T)).numpy())
    by_scipy = (
        (x.mean(0) - y.mean(0)).square().sum() + torch.cov(x.T).trace() + torch.cov(y.T).trace() - 2 * np.trace(root).real
    )
    assert ours == pytest.approx(float(by_scipy), rel=1e-6)


def test_frechet_of_known_gaussians():
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    s1, s2 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.5])
    a = Moments(torch.zeros(3).double(), torch.diag(s1**2).double(), 10, SOURCE)
    b = Moments(torch.tensor([1.0, 0, 0]).double(), torch.diag(s2**2).double(), 10, SOURCE)
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 6.25)


@pytest.mark.parametrize(("n", "d"), [(300, 20), (20, 300), (3, 1024)])
def test_a_set_is_at_no_distance_from_itself(n, d):
    x = features(n, d) * 10
    a = moments([x], SOURCE)
    assert frechet_distance(a, a) < 1e-6
    assert frechet_distance(x, x) < 1e-6


@pytest.mark.parametrize("kind", ["constant", "rank one", "tiny", "huge"])
def test_degenerate_sets_give_a_finite_number(kind):
    x, y = features(30, 10), features(40, 10, 1)
    if kind == "constant":
        x = torch.ones(30, 10)
    elif kind == "rank one":
        x = x[:, :1] * torch.ones(10)
    else:
        x = x * (1e-20 if kind == "tiny" else 1e12)
    for value in (frechet_distance(x, y), frechet_distance(moments([x], SOURCE), moments([y], SOURCE))):
        assert np.isfinite(value)
        assert value >= 0
    if kind == "constant":
        assert frechet_distance(x, y) == pytest.approx(float((x - y.mean(0))[0].square().sum() + y.var(0).sum()), rel=1e-5)


def test_streamed_moments_are_numpys_whatever_the_batches():
    x = features(101, 12) + 1000
    found = moments(x.split(7), SOURCE)
    assert np.allclose(found.mean, np.mean(x.double().numpy(), 0), rtol=1e-12)
    assert np.allclose(found.cov, np.cov(x.double().numpy(), rowvar=False), rtol=1e-7, atol=1e-9)
    with pytest.raises(InputError, match="at least two"):
        moments([x[:1]], SOURCE)
    with pytest.raises(InputError, match="NaN"):
        moments([x * torch.nan], SOURCE)


def test_statistics_files_keep_everything_and_refuse_what_differs(tmp_path):
    a = moments([features(30, 12)], FeatureSource("net-1", "bicubic", "abc"))
    a.save(tmp_path / "a.safetensors")
    back = Moments.load(tmp_path / "a.safetensors")
    assert torch.equal(back.mean, a.mean)
    assert torch.equal(back.cov, a.cov)
    assert (back.n, back.source) == (30, a.source)
    for source in (FeatureSource("net-2", "bicubic"), FeatureSource("net-1", "tf1")):
        with pytest.raises(InputError, match="cannot be compared"):
            frechet_distance(a, moments([features(30, 12)], source))
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no file of statistics"):
        Moments.load(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="no file of statistics"):
        Moments.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(("n", "size"), [(200, 50), (60, 60)])
def test_kernel_distance_is_torch_fidelitys(n, size):
    x, y = features(n, 32), features(n + 20, 32, 1, 0.1)
    theirs = kid_features_to_metric(x.double(), y.double(), kid_subsets=20, kid_subset_size=size, rng_seed=2020, verbose=False)
    mean, std = kid(x, y, 20, size)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4, abs=1e-9)


def test_kernel_distance_is_torchmetrics_and_unbiased():
    from torchmetrics.image.kid import poly_mmd

    x, y = features(90, 32, dtype=torch.float64), features(90, 32, 1, 0.1, torch.float64)
    assert kid(x, y, subset_size=None)[0] == pytest.approx(float(poly_mmd(x, y)), rel=1e-4)
    same = [kid(features(50, 8, 2 * s), features(70, 8, 2 * s + 1), subset_size=None)[0] for s in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 60**0.5
    assert min(same) < 0 < max(same)
    with pytest.raises(InputError, match="do not fit"):
        kid(x, y, 10, 91)


def test_precision_and_recall_are_torch_fidelitys(monkeypatch):
    monkeypatch.setattr(prdc_module, "ROWS", 17)
    fake, real = features(120, 8, dtype=torch.float64), features(150, 8, 1, 0.3, torch.float64)
    found = prdc(fake, real)
    precision, recall = calculate_precision_recall_full(fake, real)
    assert (found.precision, found.recall) == pytest.approx((precision, recall))
    assert 0 < found.precision < 1


def test_all_four_are_the_authors_own(monkeypatch, capsys):
    compute_prdc = pytest.importorskip("prdc", reason="prdc is not installed: pip install -e '.[dev]'").compute_prdc
    monkeypatch.setattr(prdc_module, "ROWS", 17)
    for n, m, d in ((120, 150, 8), (60, 50, 6), (300, 300, 64)):
        fake, real = features(n, d, dtype=torch.float64), features(m, d, 1, 0.2, torch.float64)
        for k in (3, 5):
            found = prdc(fake, real, k, k)._asdict()
            assert found == pytest.approx(compute_prdc(real.numpy(), fake.numpy(), nearest_k=k), abs=1e-4)
            assert found["density"] > 0
            assert 0 < found["coverage"] < 1
    capsys.readouterr()


def test_duplicates_have_radius_zero_and_count_as_inside():
    x = features(5, 4).repeat(8, 1)
    assert float(radii(x.double(), 3).abs().max()) < 1e-9
    assert prdc(x, x).precision == 1
    with pytest.raises(InputError, match="too few"):
        prdc(x[:5], x)


def test_infinity_takes_the_bias_of_n_away():
    """Two samples of one law: the distance of 200 is far from 0, its extrapolation is nearer, and is repeatable."""
    real = features(4000, 24, 1)
    plain, extrapolated = [], []
    for seed in range(5):
        x = features(200, 24, 10 + seed)
        plain.append(frechet_distance(x, real))
        extrapolated.append(frechet_infinity(x, real).value)
    assert abs(np.mean(extrapolated)) < 0.3 * np.mean(plain)
    one, again = frechet_infinity(x, real), frechet_infinity(x, real)
    assert one == again
    assert one.points[-1] == (200, pytest.approx(plain[-1]))
    at = np.array([1 / n for n, _ in one.points])
    slope, intercept = np.polyfit(at, [d for _, d in one.points], 1)
    assert (one.slope, one.value) == pytest.approx((slope, intercept))
    assert one.error > 0
    with pytest.raises(InputError, match="8"):
        frechet_infinity(x[:7], real)


def test_halves_estimate_the_standard_error():
    """Of a mean it is known: s / sqrt(n)."""
    x = np.random.default_rng(0).normal(3, 2, 400)
    found = from_halves(x.mean(), [x[h].mean() for h in halves(400, 2000)], 400)
    assert (found.high - found.value) / 1.959964 == pytest.approx(x.std() / 20, rel=0.06)
    assert found.value == pytest.approx((found.low + found.high) / 2)


def test_halves_estimate_the_error_of_distances_and_rather_too_large():
    """Over many data sets of one law: the spread of the distance, of the kernel distance, and what halves say of them."""
    mix = torch.randn(24, 24, generator=torch.Generator().manual_seed(0)) / 5
    found, said = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        real = torch.randn(60, 24, generator=generator) @ mix
        fake = 0.8 * real + 0.5 * torch.randn(60, 24, generator=generator) + 0.3
        values = [
            (frechet_distance(fake[rows], real[rows]), kid(fake[rows], real[rows], subset_size=None)[0])
            for rows in (slice(None), *halves(60, 16))
        ]
        found.append(values[0])
        said.append(np.std(values[1:], axis=0))
    ratio = np.mean(said, axis=0) / np.std(found, axis=0)
    assert all(0.9 < r < 1.7 for r in ratio), ratio


def test_bootstrap_covers_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = bootstrap(rng.exponential(1.0, 80), times=400)
        hits += found.low <= 1.0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99
    assert bootstrap([1.0, np.nan, 3.0]).value == 2
    assert np.isnan(bootstrap([]).value)
