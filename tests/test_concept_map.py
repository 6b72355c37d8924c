"""The map of concepts that comes with the starter: made as its code says, readable, and true to the table."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from unialign_gen.concepts import ConceptTable, lay_out, spread
from unialign_gen.demo.read import place
from unialign_gen.loading import find


@pytest.fixture(scope="module")
def table():
    return ConceptTable.from_checkpoint(find("starter"))


def test_what_lies_near_in_the_space_lies_near_on_the_map(table):
    """Trustworthiness (Venna & Kaski 2001) of the shipped positions, and of those that the code makes anew."""
    from sklearn.manifold import trustworthiness

    points = normalize(table.points, dim=1).numpy()
    assert trustworthiness(points, table.places.numpy(), n_neighbors=5) > 0.9
    assert trustworthiness(points, lay_out(table).numpy(), n_neighbors=5) > 0.9
    assert table.places.min() >= 0
    assert table.places.max() <= 1


def test_names_do_not_lie_on_each_other(table):
    boxes = [(x, y, 7 * len(name) + 14) for name, (x, y) in zip(table.names, table.places.tolist(), strict=True)]
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


def test_a_prompt_lies_where_its_nearest_concepts_lie(table):
    i = table.names.index("dog")
    spot, nearest = place(table, table.points[i])
    assert nearest[0] == i
    assert (torch.tensor(spot) - table.places[i]).norm() < 0.05
    cosines = normalize(table.points @ table.whitening, dim=1) @ normalize(table.points[i] @ table.whitening, dim=0)
    five = sorted(range(len(cosines)), key=lambda j: -float(cosines[j]))[:5]
    shares = [math.exp(float(cosines[j]) / 0.05) for j in five]
    expected = sum(s * table.places[j] for s, j in zip(shares, five, strict=True)) / sum(shares)
    torch.testing.assert_close(torch.tensor(spot), expected.float(), atol=1e-4, rtol=0)  # four digits
