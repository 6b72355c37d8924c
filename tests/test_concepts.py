"""The concept table: which concept an embedding lies nearest to."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unialign_gen.concepts import ConceptTable
from unialign_gen.errors import InputError
from unialign_gen.loading import find


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(7, 4, generator=generator), dim=1)
    return ConceptTable([f"thing {i}" for i in range(7)], points, torch.randn(4, 4, generator=generator))


def test_nearest_is_the_smallest_angle_under_the_precision(table):
    """The inner product x^T P y of the precision P = W W^T, one pair at a time."""
    precision = (table.whitening @ table.whitening.T).double().numpy()
    found = table.cosines(torch.eye(4)[:3])
    for row in range(3):
        x = np.eye(4)[row]
        for i, y in enumerate(table.points.double().numpy()):
            expected = x @ precision @ y / np.sqrt((x @ precision @ x) * (y @ precision @ y))
            assert float(found[row, i]) == pytest.approx(expected, abs=1e-5)
    assert table.nearest(torch.eye(4)[:1], 7)[0] == [table.names[i] for i in found[0].argsort(descending=True).tolist()]


def test_without_whitening_it_is_the_plain_cosine(table):
    plain = ConceptTable(table.names, table.points)
    x = 3 * torch.randn(5, 4)
    expected = torch.nn.functional.cosine_similarity(x[:, None], table.points[None], dim=2)
    assert torch.allclose(plain.cosines(x), expected, atol=1e-5)


def test_a_table_is_read_back_with_or_without_whitening(tmp_path, table):
    table.save(tmp_path)
    again = ConceptTable.from_checkpoint(tmp_path)
    assert again.names == table.names
    assert torch.allclose(again.cosines(table.points), table.cosines(table.points), atol=1e-2)
    ConceptTable(table.names, table.points).save(tmp_path)
    assert ConceptTable.from_checkpoint(tmp_path).whitening is None
    save_file({"other": torch.zeros(1)}, tmp_path / "concepts.safetensors")
    with pytest.raises(InputError, match="no concept table in"):
        ConceptTable.from_checkpoint(tmp_path)


def test_the_starters_whitening_moves_the_concepts_apart():
    """Their angles grow: they share the directions in which pictures of each differ."""
    folder = find("starter")
    kept = load_file(folder / "concepts.safetensors")
    assert kept["whitening"].shape == (256, 256)
    table = ConceptTable.from_checkpoint(folder)
    some = table.points
    assert torch.allclose(some.norm(dim=1), torch.ones(len(some)), atol=1e-3)
    others = ~torch.eye(len(some), dtype=torch.bool)
    whitened = ConceptTable([str(i) for i in range(len(some))], some, table.whitening).cosines(some)[others]
    assert float(whitened.mean()) < float((some @ some.T)[others].mean())
