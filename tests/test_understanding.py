"""Whether a prompt was understood: nearness to what is known, limits by modality, and the files that keep them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unialign_gen.concepts import Understanding
from unialign_gen.concepts.understanding import CONCENTRATION
from unialign_gen.errors import InputError
from unialign_gen.output import write_tensors
from unialign_gen.pipelines import EmbeddingPrior


def unit(count, width, seed=0):
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_nearness_is_the_whitened_cosine_one_by_one():
    points, seen, whitening = unit(5, 4), unit(3, 4, seed=1), torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    known = Understanding("abcde", points, whitening, {})
    for row, got in zip(seen.numpy(), known.nearness(seen).numpy(), strict=True):
        for point, value in zip(points.numpy(), got, strict=True):
            a, b = row @ whitening.numpy(), point @ whitening.numpy()
            assert value == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_style_counts_for_less_than_what_tells_things_apart():
    points = torch.eye(3)[:2]
    seen = F.normalize(torch.tensor([[1.0, 0, 2.0]]), dim=1)  # the first thing, in a strong style
    plain, whitened = (
        Understanding("ab", points, w, {"text": 0.9})(seen, "text")[0]
        for w in (torch.eye(3), torch.diag(torch.tensor([1.0, 1, 0.1])))
    )
    assert (plain.understood, whitened.understood) == (False, True)
    assert whitened.nearest == ("a", "b")


def test_the_limit_refuses_its_share_of_real_prompts():
    near = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    limit = Understanding.limit(near)
    assert float((near < limit).float().mean()) == pytest.approx(0.03, abs=0.001)
    known = Understanding(["a"], torch.eye(2)[:1], torch.eye(2), {"text": 0.5})
    seen = torch.tensor([[0.6, 0.8], [0.4, 0.9165]])
    assert [one.understood for one in known(seen, "text")] == [True, False]
    assert [one.understood for one in known(seen, "audio")] == [True, True]  # no limit was measured


def test_it_is_kept_beside_the_prior_whose_points_it_names(tmp_path):
    prior = EmbeddingPrior(4, 3)
    prior.points.copy_(unit(3, 4))
    prior.save_pretrained(tmp_path / "prior")
    assert Understanding.from_checkpoint(tmp_path) is None
    kept = Understanding(["dog", "猫", "car"], prior.points, prior.whitening, {"text": 0.7})
    kept.save(tmp_path)
    again, seen = Understanding.from_checkpoint(tmp_path), unit(5, 4, seed=1)
    assert again(seen, "text") == kept(seen, "text")
    assert again.wordings is None
    wordings = unit(3, 6, seed=2)
    Understanding(kept.names, prior.points, prior.whitening, {}, wordings).save(tmp_path)
    texts = unit(2, 6, seed=3)
    spoken = Understanding.from_checkpoint(tmp_path).worded(5 * texts)
    torch.testing.assert_close(spoken, CONCENTRATION * texts @ wordings.T, atol=0.5, rtol=0)  # in eight bits
    kept.save(tmp_path)
    assert Understanding.from_checkpoint(tmp_path).wordings is None
    write_tensors(tmp_path / "understanding.safetensors", {"wordings": torch.ones(2, 6, dtype=torch.int8)})
    with pytest.raises(InputError, match="2 wordings for 3 names"):
        Understanding.from_checkpoint(tmp_path)
    Understanding(["dog"], prior.points[:1], prior.whitening, {}).save(tmp_path)
    with pytest.raises(InputError, match="1 names for 3 points"):
        Understanding.from_checkpoint(tmp_path)
