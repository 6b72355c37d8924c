"""The map: its affinities and its quality against scikit-learn's t-SNE, its gradient against autograd."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from unialign_gen.concepts import ConceptTable
from unialign_gen.demo.concept_map import ConceptMap, affinities, divergence, slope, spread, tsne
from unialign_gen.loading import find

sklearn_tsne = pytest.importorskip("sklearn.manifold")


@pytest.fixture(scope="module")
def table():
    return ConceptTable.from_checkpoint(find("starter"))


@pytest.fixture(scope="module")
def concept_map(table):
    return ConceptMap.of(table)


def test_rows_have_the_perplexity_that_was_asked_for():
    points = normalize(torch.randn(60, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _joint_probabilities

    squared = torch.cdist(points, points).square().numpy()
    expected = torch.from_numpy(squareform(_joint_probabilities(squared, 8.0, 0)))
    torch.testing.assert_close(affinities(points, 8.0).fill_diagonal_(0), expected, atol=1e-6, rtol=1e-3)


def test_the_gradient_is_that_of_the_divergence():
    torch.manual_seed(0)
    target = affinities(normalize(torch.randn(20, 8), dim=1), 5)
    places = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    near = 1 / (1 + torch.cdist(places, places).square())
    near = near * (1 - torch.eye(20))
    found = near / near.sum()
    loss = -(target * found.clamp(min=1e-300).log() * (1 - torch.eye(20))).sum()
    (expected,) = torch.autograd.grad(loss, places)
    torch.testing.assert_close(slope(places.detach(), target.fill_diagonal_(0)), expected, atol=1e-7, rtol=1e-5)


def test_the_map_is_as_good_as_scikit_learns(table, concept_map):
    points = normalize(table.points, dim=1)
    target = affinities(points, 8.0)
    other = sklearn_tsne.TSNE(perplexity=8.0, init="pca", random_state=0).fit_transform(points.numpy())
    assert divergence(tsne(points), target) < 1.05 * divergence(torch.from_numpy(other), target)


def test_the_same_table_gives_the_same_map(table, concept_map):
    assert torch.equal(ConceptMap.of(table).places, concept_map.places)
    assert concept_map.places.min() >= 0
    assert concept_map.places.max() <= 1


def test_names_do_not_lie_on_each_other(concept_map):
    boxes = [
        (x, y, 7 * len(name) + 14) for name, (x, y) in zip(concept_map.table.names, concept_map.places.tolist(), strict=True)
    ]
    over = [
        (i, j)
        for i, (x, y, w) in enumerate(boxes)
        for j, (u, v, t) in enumerate(boxes[:i])
        if abs(x - u) * 1000 < (w + t) / 2 - 1 and abs(y - v) * 720 < 15
    ]
    assert len(over) <= 2


def test_spreading_keeps_what_is_apart_where_it_is():
    places = torch.tensor([[0.2, 0.2], [0.21, 0.2], [0.8, 0.8]], dtype=torch.float64)
    moved = spread(places, torch.full((3, 2), 0.1, dtype=torch.float64))
    assert torch.equal(moved[2], places[2])
    assert (moved[0] - moved[1]).abs().max() >= 0.0999
    same = spread(torch.full((2, 2), 0.5, dtype=torch.float64), torch.full((2, 2), 0.1, dtype=torch.float64))
    assert (same[0] - same[1]).abs().max() >= 0.0999


def test_a_prompt_lies_where_its_nearest_concepts_lie(concept_map):
    table = concept_map.table
    i = table.names.index("dog")
    place, nearest = concept_map.place(table.points[i])
    assert nearest[0] == i
    assert (place - concept_map.places[i]).norm() < 0.05
    cosines = normalize(table.points @ table.whitening, dim=1) @ normalize(table.points[i] @ table.whitening, dim=0)
    five = sorted(range(len(cosines)), key=lambda j: -float(cosines[j]))[:5]
    shares = [math.exp(float(cosines[j]) / 0.05) for j in five]
    expected = sum(s * concept_map.places[j] for s, j in zip(shares, five, strict=True)) / sum(shares)
    torch.testing.assert_close(place, expected.float(), atol=1e-5, rtol=1e-4)
