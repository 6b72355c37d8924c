"""Ranks by brute force on whole matrices, and against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unialign_gen.errors import InputError
from unialign_gen.eval import retrieval
from unialign_gen.eval.retrieval import Cosine, Volume, dual_softmax_ranks, ranks, recalls, rescored_ranks
from unialign_gen.objectives.volume import gram_volume


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", 7)
    monkeypatch.setattr(retrieval, "COLUMNS", 11)


def unit(n, d=6, seed=0):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def naive(scores, owner):
    """(Q, N) scores -> ranks of both directions, ties half."""
    s, owner = scores.double().numpy(), owner.numpy()
    to_clip = [1 + (r > r[o]).sum() + ((r == r[o]).sum() - 1) / 2 for r, o in zip(s, owner, strict=True)]
    to_text = []
    for j in range(s.shape[1]):
        best, others = s[owner == j, j].max(), s[owner != j, j]
        to_text.append(1 + (others > best).sum() + (others == best).sum() / 2)
    return np.array(to_clip), np.array(to_text)


@pytest.mark.parametrize("captions", [1, 3])
def test_cosine_ranks_by_brute_force(captions):
    clip, owner = unit(30), torch.arange(30).repeat_interleave(captions)
    text = F.normalize(clip[owner] + unit(30 * captions, seed=1), dim=1)
    found = ranks(Cosine(text, clip), owner)
    to_clip, to_text = naive(text @ clip.T, owner)
    assert np.array_equal(found.to_clip, to_clip)
    assert np.array_equal(found.to_text, to_text)
    assert len(found.to_clip) == 30 * captions
    assert len(found.to_text) == 30


def test_owners_in_any_order_and_uneven():
    owner = torch.tensor([2, 0, 1, 2, 2, 0])
    text, clip = unit(6), unit(3, seed=1)
    found = ranks(Cosine(text, clip), owner)
    to_clip, to_text = naive(text @ clip.T, owner)
    assert np.array_equal(found.to_clip, to_clip)
    assert np.array_equal(found.to_text, to_text)


@pytest.mark.parametrize("more", [1, 2, 3])
def test_volume_ranks_by_brute_force(more):
    rest = [unit(20, seed=s) for s in range(more)]
    text = F.normalize(sum(rest) + 0.7 * unit(20, seed=9), dim=1)
    volumes = torch.stack([gram_volume([t.expand(20, -1), *rest]) for t in text])
    found = ranks(Volume(text, rest), torch.arange(20))
    to_clip, to_text = naive(-volumes, torch.arange(20))
    assert np.array_equal(found.to_clip, to_clip)
    assert np.array_equal(found.to_text, to_text)


def test_a_model_that_says_nothing_gets_the_rank_of_chance():
    same = unit(1).expand(41, -1)
    found = ranks(Cosine(same, same), torch.arange(41))
    assert set(found.to_clip) == set(found.to_text) == {21.0}
    assert recalls(found.to_clip)["R@10"] == 0
    twice = ranks(Cosine(same[:20], same[:10]), torch.arange(10).repeat_interleave(2))
    assert set(twice.to_clip) == {5.5}
    assert set(twice.to_text) == {10.0}  # 18 rivals of other clips, ties half


def test_duplicates_of_the_right_clip_share_its_rank():
    clip = unit(5)
    clip[3] = clip[1]
    found = ranks(Cosine(clip, clip), torch.arange(5))
    assert found.to_clip.tolist() == [1, 1.5, 1, 1.5, 1]
    assert recalls(found.to_clip)["R@1"] == pytest.approx(0.6)


def test_recalls_are_torchmetrics():
    from torchmetrics.functional.retrieval import retrieval_recall

    text, clip = unit(40), unit(40, seed=1)
    found = recalls(ranks(Cosine(text, clip), torch.arange(40)).to_clip)
    scores = text @ clip.T
    for k in (1, 5, 10):
        theirs = np.mean([float(retrieval_recall(s, torch.arange(40) == i, top_k=k)) for i, s in enumerate(scores)])
        assert found[f"R@{k}"] == pytest.approx(theirs)
    order = scores.argsort(dim=1, descending=True)
    assert found["median_rank"] == np.median([order[i].tolist().index(i) + 1 for i in range(40)])


def test_dual_softmax_is_its_formula_and_needs_pairs():
    text, clip = unit(25), unit(25, seed=1)
    s = (text @ clip.T).double()
    found = dual_softmax_ranks(Cosine(text, clip), torch.arange(25), scale=20)
    assert np.array_equal(found.to_clip, naive(s * (20 * s).softmax(0), torch.arange(25))[0])
    assert np.array_equal(found.to_text, naive(s * (20 * s).softmax(1), torch.arange(25))[1])
    with pytest.raises(InputError, match="one to one"):
        dual_softmax_ranks(Cosine(text, clip[:5]), torch.arange(5).repeat_interleave(5))


def test_rescoring_reorders_the_candidates_only():
    text, clip, owner = unit(30), unit(10, seed=1), torch.arange(10).repeat_interleave(3)
    plain = ranks(Cosine(text, clip), owner)

    def knows_clips(i, candidates):
        return [float(c == int(owner[i])) for c in candidates]

    def knows_texts(j, candidates):
        return [float(int(owner[t]) == j) for t in candidates]

    found = rescored_ranks(Cosine(text, clip), owner, knows_clips, knows_texts, top=4)
    assert np.array_equal(found.to_clip, np.where(plain.to_clip <= 4, 1, plain.to_clip))
    assert np.array_equal(found.to_text, np.where(plain.to_text <= 4, 1, plain.to_text))
    same = rescored_ranks(Cosine(text, clip), owner, lambda i, c: [0.0] * len(c), lambda j, t: [0.0] * len(t), top=4)
    assert set(same.to_clip[plain.to_clip <= 4]) == {2.5}
    scores = (text @ clip.T).numpy()
    again = rescored_ranks(Cosine(text, clip), owner, lambda i, c: scores[i, c], lambda j, t: scores[t, j], top=4)
    assert np.array_equal(again.to_clip, plain.to_clip)
    assert np.array_equal(again.to_text, plain.to_text)


def test_clips_without_a_text_are_refused():
    with pytest.raises(InputError, match="every clip"):
        ranks(Cosine(unit(3), unit(4)), torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match="NaN"):
        ranks(Cosine(unit(3) * torch.nan, unit(3)), torch.arange(3))


def test_no_matrix_of_all_against_all_is_held(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", 256)
    seen = []

    class Counting(Cosine):
        def block(self, rows):
            out = super().block(rows)
            seen.append(tuple(out.shape))
            return out

    z = unit(3000, 8)
    assert set(ranks(Counting(z, z), torch.arange(3000)).to_clip) == {1.0}
    assert max(rows for rows, _ in seen) == 256


@pytest.mark.parametrize("more", [1, 2, 3])
def test_own_scores_are_entries_of_the_blocks(more):
    rest, text, owner = [unit(9, seed=s) for s in range(more)], unit(20, seed=8), torch.arange(20) % 9
    for score in (Volume(text, rest), Cosine(text, rest[0])):
        entries = score.block(slice(3, 17)).gather(1, owner[3:17, None])[:, 0]
        assert torch.allclose(score.own(slice(3, 17), owner[3:17]), entries, atol=3e-7)
