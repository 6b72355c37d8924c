"""Ranks by brute force on whole matrices and over every order of ties, and against scikit-learn and torchmetrics."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, ndcg_score

from unialign_gen import retrieval
from unialign_gen.errors import InputError
from unialign_gen.objectives.volume import gram_volume
from unialign_gen.retrieval import (
    Cosine,
    DualSoftmax,
    QueryWeightedCentroid,
    Reranked,
    Volume,
    both_ways,
    equal_rows,
    ranks,
    recalls,
)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", 7)
    monkeypatch.setattr(retrieval, "COLUMNS", 11)


def unit(n, d=6, seed=0):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def whole(score):
    return score.tile(slice(0, score.texts), slice(0, score.clips)).double().numpy()


def relevance(owner, clips, groups=None):
    """(Q, N): which clip is right for which text."""
    owner = owner.numpy()
    right = owner[:, None] == np.arange(clips)
    if groups is not None:
        same = groups.numpy()[:, None] == groups.numpy()
        right = (same @ right) > 0
    return right


def naive(scores, right):
    """Rank of the best right one of each row, where nothing ties."""
    return np.array([1 + (r[~ok] > r[ok].max()).sum() for r, ok in zip(scores, right, strict=True)])


@pytest.mark.parametrize("captions", [1, 3])
def test_cosine_ranks_by_brute_force(captions):
    clip, owner = unit(30), torch.arange(30).repeat_interleave(captions)
    text = F.normalize(clip[owner] + unit(30 * captions, seed=1), dim=1)
    score = Cosine(text, clip)
    found = ranks(score, owner)
    assert np.array_equal(found.to_clip.rank, naive(whole(score), relevance(owner, 30)))
    assert np.array_equal(found.to_text.rank, naive(whole(score).T, relevance(owner, 30).T))
    assert (len(found.to_clip), len(found.to_text)) == (30 * captions, 30)


def test_owners_in_any_order_and_uneven():
    owner = torch.tensor([2, 0, 1, 2, 2, 0])
    score = Cosine(unit(6), unit(3, seed=1))
    found = ranks(score, owner)
    assert np.array_equal(found.to_clip.rank, naive(whole(score), relevance(owner, 3)))
    assert np.array_equal(found.to_text.rank, naive(whole(score).T, relevance(owner, 3).T))


@pytest.mark.parametrize("more", [1, 2, 3])
def test_volume_ranks_by_brute_force(more):
    rest = [unit(20, seed=s) for s in range(more)]
    text = F.normalize(sum(rest) + 0.7 * unit(20, seed=9), dim=1)
    volumes = torch.stack([gram_volume([t.expand(20, -1), *rest]) for t in text]).numpy()
    found = ranks(Volume(text, rest), torch.arange(20))
    assert np.array_equal(found.to_clip.rank, naive(-volumes, np.eye(20, dtype=bool)))
    assert np.array_equal(found.to_text.rank, naive(-volumes.T, np.eye(20, dtype=bool)))


def test_a_volume_without_a_modality_is_that_of_the_others():
    rest, text = [unit(20, seed=s) for s in range(2)], unit(8, seed=9)
    rest[0][::2], rest[1][1::4] = 0, 0
    found = whole(Volume(text, rest))
    for j in range(20):
        there = [r[j].expand(8, -1) for r in rest if r[j].any()]
        assert np.allclose(-found[:, j], gram_volume([text, *there]).double().square(), atol=1e-5)


@pytest.mark.parametrize("missing", [False, True])
def test_query_weighted_centroids_are_their_formula(missing):
    rest, text = [unit(13, seed=s) for s in range(3)], unit(5, seed=9)
    if missing:
        rest[0][::2], rest[2][::3] = 0, 0
    found = whole(QueryWeightedCentroid(text, rest))
    for i, t in enumerate(text):
        for j in range(13):
            there = torch.stack([r[j] for r in rest if r[j].any()])
            centroid = ((there @ t) / 0.1).softmax(0) @ there
            assert found[i, j] == pytest.approx(float(F.cosine_similarity(centroid, t, dim=0)), abs=1e-5)
    nothing = QueryWeightedCentroid(text, [torch.zeros(5, 6), torch.zeros(5, 6)])
    assert np.array_equal(whole(nothing), np.zeros((5, 5)))


def expected(scores, right):
    """Every figure of one query as the mean over all orders of its candidates that the scores allow."""
    found = []
    for order in permutations(range(len(scores))):
        order = np.array(order)
        ranked = right[order[np.argsort(-scores[order], kind="stable")]]
        places = np.flatnonzero(ranked) + 1
        gain = (1 / np.log2(1 + places[places <= 10])).sum() / (1 / np.log2(1 + np.arange(1, right.sum() + 1))).sum()
        found.append([places[0], places[0] <= 1, places[0] <= 5, (np.arange(1, len(places) + 1) / places).mean(), gain])
    return np.mean(found, axis=0)


@pytest.mark.parametrize("seed", range(6))
def test_ties_count_by_expectation(seed):
    """Scores of few values, several right ones a query: against the mean over every order."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.cat([torch.arange(5), torch.randint(0, 5, (1,), generator=generator)])
    groups = torch.randint(0, 3, (6,), generator=generator)
    text = torch.randint(0, 3, (6, 5), generator=generator).float() / 2
    for groups_or_none in (None, groups):
        right = relevance(owner, 5, groups_or_none)
        found = ranks(Cosine(text, torch.eye(5)), owner, groups_or_none)
        for direction, scores, ok in ((found.to_clip, text, right), (found.to_text, text.T, right.T)):
            for i in range(len(scores)):
                mine = [direction.rank[i], direction.hits[1][i], direction.hits[5][i], direction.ap[i], direction.ndcg[i]]
                assert np.allclose(mine, expected(scores[i].numpy(), ok[i])), i


def test_a_model_that_says_nothing_is_at_chance():
    same = unit(1).expand(41, -1)
    found = ranks(Cosine(same, same), torch.arange(41))
    for direction in (found.to_clip, found.to_text):
        assert set(direction.rank) == {21.0}
        assert recalls(direction)["R@1"] == pytest.approx(1 / 41)
        assert recalls(direction)["R@10"] == pytest.approx(10 / 41)
    twice = ranks(Cosine(same[:20], same[:10]), torch.arange(10).repeat_interleave(2))
    assert set(twice.to_clip.rank) == {5.5}
    assert np.allclose(twice.to_text.rank, 7)  # the first of 2 among 20: 21 / 3
    assert np.allclose(twice.to_text.hits[1], 0.1)


def test_a_random_model_is_at_chance():
    found = ranks(Cosine(unit(400), unit(400, seed=1)), torch.arange(400))
    assert recalls(found.to_clip)["R@10"] == pytest.approx(10 / 400, abs=0.02)
    assert recalls(found.to_text)["median_rank"] == pytest.approx(200, abs=25)


def test_two_equal_scores_are_right_half_the_time():
    clip = unit(5)
    clip[3] = clip[1]
    found = ranks(Cosine(clip, clip), torch.arange(5)).to_clip
    assert found.rank.tolist() == [1, 1.5, 1, 1.5, 1]
    assert recalls(found)["R@1"] == pytest.approx(0.8)


def test_a_perfect_model_on_repeated_captions():
    """50 captions of two clips each: strictly half are right, both directions; with equal captions right all are."""
    captions = unit(50, 32).repeat_interleave(2, 0)
    clips = F.normalize(captions + 0.05 * unit(100, 32, seed=1), dim=1)
    groups = equal_rows(captions)
    strict, equal = ranks(Cosine(captions, clips), torch.arange(100)), ranks(Cosine(captions, clips), torch.arange(100), groups)
    for direction in (strict.to_clip, strict.to_text):
        assert recalls(direction)["R@1"] == pytest.approx(0.5, abs=0.07)
    for direction in (equal.to_clip, equal.to_text):
        assert {k: recalls(direction)[k] for k in ("R@1", "mAP", "nDCG@10")} == {"R@1": 1, "mAP": 1, "nDCG@10": 1}


def test_equal_rows_are_found_but_for_rounding():
    x = unit(40, 16)[torch.randint(0, 40, (300,), generator=torch.Generator().manual_seed(1))]
    noisy = 5 * x * (1 + 1e-6 * torch.randn(300, 16, generator=torch.Generator().manual_seed(2)))
    found = equal_rows(noisy)
    assert np.array_equal(found[:, None] == found, (x[:, None] == x).all(2))


def test_figures_are_scikit_learns_and_torchmetrics():
    from torchmetrics.functional.retrieval import retrieval_recall

    text, clip, owner = unit(40), unit(20, seed=1), torch.arange(20).repeat(2)
    found = ranks(Cosine(text, clip), owner)
    scores = text @ clip.T
    right = relevance(owner, 20)
    ap = [average_precision_score(r, s) for r, s in zip(right.T, scores.T.numpy(), strict=True)]
    assert np.allclose(found.to_text.ap, ap)
    ndcg = [ndcg_score(r[None], s[None], k=10) for r, s in zip(right.T, scores.T.numpy(), strict=True)]
    assert np.allclose(found.to_text.ndcg, ndcg)
    for k in (1, 5, 10):
        # torchmetrics takes scores of 0 and less for not found
        theirs = np.mean(
            [float(retrieval_recall(s + 2, torch.from_numpy(r), top_k=k)) for s, r in zip(scores, right, strict=True)]
        )
        assert recalls(found.to_clip)[f"R@{k}"] == pytest.approx(theirs)


def test_dual_softmax_is_its_formula_and_needs_pairs():
    text, clip = unit(25), unit(25, seed=1)
    s = (text @ clip.T).double()
    found = both_ways(lambda over: DualSoftmax(Cosine(text, clip), torch.arange(25), over, 20), torch.arange(25))
    eye = np.eye(25, dtype=bool)
    assert np.array_equal(found.to_clip.rank, naive((s * (20 * s).softmax(0)).numpy(), eye))
    assert np.array_equal(found.to_text.rank, naive((s * (20 * s).softmax(1)).numpy().T, eye))
    with pytest.raises(InputError, match="one to one"):
        DualSoftmax(Cosine(text, clip[:5]), torch.arange(5).repeat_interleave(5), "text")


def test_a_reranker_orders_the_first_candidates_of_each_query():
    text, clip = unit(30), unit(30, seed=1)
    s = (text @ clip.T).double().numpy()
    other = np.random.default_rng(0).normal(size=(30, 30))
    found = both_ways(lambda over: Reranked(Cosine(text, clip), torch.from_numpy(other).float(), over, 5), torch.arange(30))

    def expected(s, other):
        first = np.argsort(-s, axis=1)[:, :5]
        place = [np.flatnonzero(np.argsort(-s[i]) == i)[0] for i in range(30)]
        return [1 + (other[i, first[i]] > other[i, i]).sum() if i in first[i] else 1 + place[i] for i in range(30)]

    assert found.to_clip.rank.tolist() == expected(s, other)
    assert found.to_text.rank.tolist() == expected(s.T, other.T)
    with pytest.raises(InputError, match=r"\(30, 30\)"):
        Reranked(Cosine(text, clip), torch.zeros(3, 3), "text")


def test_clips_without_a_text_are_refused():
    with pytest.raises(InputError, match="every clip"):
        ranks(Cosine(unit(3), unit(4)), torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match="NaN"):
        ranks(Cosine(unit(3) * torch.nan, unit(3)), torch.arange(3))


def test_no_matrix_of_all_against_all_is_held(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", 256)
    monkeypatch.setattr(retrieval, "COLUMNS", 1024)
    seen = []

    class Counting(Cosine):
        def tile(self, rows, columns):
            out = super().tile(rows, columns)
            seen.append(tuple(out.shape))
            return out

    z = unit(3000, 8)
    assert set(ranks(Counting(z, z), torch.arange(3000)).to_clip.rank) == {1.0}
    assert max(seen) == (256, 1024)
