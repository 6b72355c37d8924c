"""The retrieval and the gap protocol on features that are made up, so that the answers are known."""

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from unialign_gen import diagnostics
from unialign_gen.data.cache import Ragged, counted
from unialign_gen.errors import InputError
from unialign_gen.eval import gap, groups, search
from unialign_gen.heads import Head, load_head, save_head
from unialign_gen.loading import shipped_folder
from unialign_gen.loading.methods import OWN, Method, digest, head, heads_folder, parse
from unialign_gen.notes import collected
from unialign_gen.training.features import embed_mean

N, D = 60, 12


class Made:
    """Stands where a feature cache stands: three modalities around common points, two captions a clip, sound for some."""

    def __init__(self, captions=2, silent=10, noise=0.5):
        generator = torch.Generator().manual_seed(0)
        common = torch.randn(N, D, generator=generator)

        def near(rows):
            return common[rows] + noise * torch.randn(len(rows), D, generator=generator)

        self.ids, self.labels = [f"c{i}" for i in range(N)], ["a", "b"] * (N // 2)
        counts = {
            "text": torch.full((N,), captions),
            "video": torch.full((N,), 3),
            "image": torch.ones(N, dtype=torch.int64),
            "audio": (torch.arange(N) >= silent).to(torch.int64),
        }
        self.kept = {m: Ragged(near(torch.repeat_interleave(torch.arange(N), c)), counted(c)) for m, c in counts.items()}
        self.modalities = dict.fromkeys(counts, D)

    def features(self, modality):
        return self.kept[modality]


def trained(folder, seed, kinds=("text", "audio", "image")):
    """Heads of a run: a rotation and a little noise of their own."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(D, D)).Q
    torch.manual_seed(seed)
    for kind in kinds:
        made = Head(D, D, 4)
        torch.nn.init.zeros_(made.mlp[3].weight)
        made.linear.weight.data = turn + 0.1 * torch.randn(D, D)
        save_head(made, folder / "heads" / kind)
    return folder


def value(rows, **about):
    (found,) = [r for r in rows if all(r[k] == v for k, v in about.items())]
    return found


def test_methods_are_named_folders(tmp_path):
    run = trained(tmp_path / "run", 1)
    (method,) = parse([f"uni={run},{run / 'heads'}"])
    assert method == Method("uni", (run / "heads", run / "heads"))
    assert parse([]) == parse([OWN]) == [Method(OWN, (None,))]
    assert digest(run / "heads") != digest(trained(tmp_path / "other", 2) / "heads")
    assert digest(None) == OWN
    assert isinstance(head("video", run / "heads", None), Head)  # frames go through the image head
    assert isinstance(head("depth", run / "heads", None), torch.nn.Identity)
    for entries, words in (
        (["uni"], "NAME=FOLDER"),
        (["uni="], "NAME=FOLDER"),
        (["a/b=x"], "NAME=FOLDER"),
        ([f"uni={run}", f"uni={run}"], "twice"),
        ([f"uni={tmp_path}"], "no heads"),
    ):
        with pytest.raises(InputError, match=words):
            parse(entries)
    with pytest.raises(InputError, match="no heads"):
        heads_folder(tmp_path / "nowhere")


def test_the_starters_own_heads_are_found_without_its_encoders():
    from unialign_gen.aligner import Aligner

    folder = shipped_folder() / "starter" / "aligner"
    fresh = Aligner.from_pretrained(folder)
    own = head("text", None, fresh)
    assert len(fresh.parts) == 0
    x = torch.randn(3, 384)
    assert torch.allclose(own(x), load_head(folder / "text")(x))


def test_retrieval_figures_are_those_of_the_whole_matrix():
    made = Made()
    found = search.evaluate(made, [Method("raw", (None,))], ["video", "audio"], dataset="made")
    text = F.normalize(made.kept["text"].values, dim=1)
    video = F.normalize(F.normalize(made.kept["video"].values, dim=1).view(N, 3, D).mean(1), dim=1)
    order = (text @ video.T).argsort(dim=1, descending=True)
    hits = (order[:, 0] == torch.arange(N).repeat_interleave(2)).double().mean()
    got = value(found["rows"], task="T->V", metric="R@1", subset="with video")
    assert got["value"] == pytest.approx(float(hits))
    assert got["low"] < got["value"] < got["high"]
    assert (got["n"], got["dataset"], got["method"]) == (2 * N, "made", "raw")
    back = value(found["rows"], task="V->T", metric="R@5", subset="with video")
    top = (video @ text.T).argsort(dim=1, descending=True)[:, :5]
    assert back["value"] == pytest.approx(float((top // 2 == torch.arange(N)[:, None]).any(1).double().mean()))


def test_clips_without_sound_make_a_subset_of_their_own():
    rows = search.evaluate(Made(), [Method("raw", (None,))], ["video", "audio"])["rows"]
    sizes = {(r["subset"], r["label"]): r["n"] for r in rows if r["task"].startswith("T->")}
    assert sizes == {
        ("with video", "T-V cosine"): 120,
        **{
            ("with video and audio", f"T-{m}"): 100
            for m in ("V cosine", "A cosine", "VA centroid", "VA volume", "VA query-weighted centroid")
        },
    }
    whole = search.evaluate(Made(silent=0), [Method("raw", (None,))], ["video", "audio"])["rows"]
    assert {r["subset"] for r in whole} == {"all"}


def test_rows_that_use_more_than_the_score_say_so():
    made = Made(captions=1, silent=0, noise=2.0)
    rows = search.evaluate(made, [Method("raw", (None,))], ["video"], dsl=20.0)["rows"]
    assert {r["label"] for r in rows} == {"T-V cosine", "T-V cosine +DSL"}
    several = search.evaluate(Made(), [Method("raw", (None,))], ["video"], dsl=20.0)["rows"]
    assert {r["label"] for r in several} == {"T-V cosine"}


class Repeated(Made):
    """Every caption serves two clips, to the digit but for rounding; the model is perfect."""

    def __init__(self):
        super().__init__(captions=1, silent=0, noise=0)
        text = self.kept["text"].values
        text[1::2] = text[::2] * (1 + 1e-7)
        generator = torch.Generator().manual_seed(1)
        for m in ("video", "audio"):
            values, counts = self.kept[m].values, self.kept[m].counts
            owner = torch.repeat_interleave(torch.arange(N), counts)
            values.copy_(text[owner] + 0.01 * torch.randn(len(owner), D, generator=generator))


def test_repeated_captions_are_reported_in_both_readings():
    found = search.evaluate(Repeated(), [Method("perfect", (None,))], ["video", "audio"])
    facts = found["captions"]["all"]
    assert (facts["captions"], facts["distinct"]) == (N, N // 2)
    assert [v for k, v in facts.items() if "ceiling" in k] == [0.5, 0.5]
    for label in ("T-V cosine", "T-VA centroid", "T-VA volume", "T-VA query-weighted centroid"):
        task = f"T->{label.split()[0][2:]}"
        assert value(found["rows"], label=label, task=task, metric="R@1")["value"] == pytest.approx(0.5, abs=0.2)
        equal = label + search.EQUAL
        assert value(found["rows"], label=equal, task=task, metric="R@1")["value"] == 1
        assert value(found["rows"], label=equal, task=task, metric="nDCG@10")["value"] == 1
    assert not any("equal" in r["label"] for r in search.evaluate(Made(), [Method("raw", (None,))], ["video"])["rows"])


def test_gain_is_together_minus_the_best_pathway_alone():
    rows = search.evaluate(Made(captions=1, silent=0, noise=1.5), [Method("raw", (None,))], ["video", "audio"])["rows"]
    alone = {
        label: value(rows, label=label, metric="R@1", task=f"T->{label[2]}")["value"] for label in ("T-V cosine", "T-A cosine")
    }
    best = max(alone, key=alone.get)
    for label in ("T-VA centroid", "T-VA volume", "T-VA query-weighted centroid"):
        gain = value(rows, label=label, metric="gain in R@1 over the best pathway alone", task="T->VA")
        together = value(rows, label=label, metric="R@1", task="T->VA")
        assert gain["value"] == pytest.approx(together["value"] - alone[best])
        assert gain["pathway"] == best
        assert gain["low"] <= gain["value"] <= gain["high"]


def test_modalities_are_taken_away_by_hash_and_one_is_left():
    z = {m: F.normalize(torch.randn(500, 4), dim=1) for m in ("video", "audio")}
    ids = [str(i) for i in range(500)]
    left = {rate: search.without(z, ids, rate) for rate in search.RATES}
    shares = [torch.stack([v.any(1) for v in some.values()]).double().mean() for some in left.values()]
    assert [float(s) for s in shares] == sorted((float(s) for s in shares), reverse=True)
    assert float(shares[0]) == pytest.approx(1 - 0.1 + 0.01 / 2, abs=0.03)
    for some in left.values():
        assert bool(torch.stack([v.any(1) for v in some.values()]).any(0).all())
    for a, b in zip(search.RATES, search.RATES[1:], strict=False):  # what is gone at a rate is gone at every higher one
        assert not any(bool((left[b][m].any(1) & ~left[a][m].any(1)).any()) for m in z)
    noisy = Made(captions=1, silent=0, noise=1.5)
    rows = search.evaluate(noisy, [Method("raw", (None,))], ["video", "audio"], missing=True)["rows"]
    curve = [value(rows, label=f"T-VA centroid, {r:.0%} missing", task="T->VA", metric="R@1")["value"] for r in search.RATES]
    assert curve[0] > curve[-1]
    some = search.evaluate(Made(captions=1), [Method("raw", (None,))], ["video"], ids=frozenset(["c3", "c20", "c41"]))["rows"]
    assert {r["n"] for r in some} == {3}


def test_methods_are_compared_clip_by_clip(tmp_path):
    good, bad = trained(tmp_path / "good", 1) / "heads", tmp_path / "bad"
    for kind in ("text", "image"):
        torch.manual_seed(len(kind))
        save_head(Head(D, D, 4), bad / kind)
    found = search.evaluate(Made(captions=1), [Method("good", (good, good)), Method("bad", (bad,))], ["video"])
    difference = value(found["differences"], task="T->V", metric="R@1")
    a, b = (value(found["rows"], method=m, task="T->V", metric="R@1") for m in ("good", "bad"))
    assert difference["method"] == "good - bad"
    assert difference["value"] == pytest.approx(a["value"] - b["value"])
    assert difference["low"] > 0.3
    same = search.evaluate(Made(), [Method("a", (good,)), Method("b", (good,))], ["video"])["differences"]
    assert {(r["value"], r["low"], r["high"]) for r in same} == {(0, 0, 0)}


def test_runs_are_averaged(tmp_path):
    runs = [trained(tmp_path / str(s), s) / "heads" for s in (1, 2)]
    made = Made(noise=1.0)
    one, two = (search.evaluate(made, [Method("m", (r,))], ["video"])["rows"] for r in runs)
    both = search.evaluate(made, [Method("m", tuple(runs))], ["video"])["rows"]
    for a, b, c in zip(one, two, both, strict=True):
        assert c["value"] == pytest.approx((a["value"] + b["value"]) / 2)


def test_what_the_features_lack_is_named():
    with pytest.raises(InputError, match="the features have"):
        search.evaluate(Made(), [Method("raw", (None,))], ["depth"])
    with pytest.raises(InputError, match="the features have"):
        gap.evaluate(Made(), [Method("raw", (None,))], ["text", "depth"])
    with pytest.raises(InputError, match="only 5 samples"):
        gap.evaluate(Made(silent=N - 5), [Method("raw", (None,))], ["text", "audio"])


def test_gap_figures_are_the_diagnostics_of_the_samples_that_have_all():
    made = Made()
    found = gap.evaluate(made, [Method("raw", (None,))], ["image", "text", "audio"], resamples=4)
    z = {
        "image": F.normalize(made.kept["image"].values, dim=1)[10:],
        "text": F.normalize(made.kept["text"].values, dim=1)[::2][10:],
        "audio": F.normalize(made.kept["audio"].values, dim=1),
    }
    z = {k: v.double() for k, v in z.items()}
    rows = found["rows"]
    assert {r["n"] for r in rows} == {50}
    conflicts = diagnostics.conflicts(z, "image").summary()
    assert value(rows, metric="zeta")["value"] == pytest.approx(conflicts["zeta"], abs=1e-6)
    pair = value(rows, task="image|audio", metric="gap")
    assert pair["value"] == pytest.approx(float((z["image"].mean(0) - z["audio"].mean(0)).norm()), abs=1e-6)
    assert pair["low"] < pair["value"] < pair["high"]
    assert value(rows, task="text", metric="uniformity")["value"] == pytest.approx(diagnostics.uniformity(z["text"]), abs=1e-6)
    names = {r["metric"] for r in rows}
    assert names >= {"zeta", "chi", "bound", "Hoelder divergence", "gap", "separability", "cosine", "alignment", "uniformity"}


def made_pair():
    generator = torch.Generator().manual_seed(3)
    return [
        F.normalize(torch.randn(n, 5, dtype=torch.float64, generator=generator) + k, dim=1) for n, k in ((40, 0.2), (30, 0))
    ]


def test_distribution_gaps_are_their_definitions():
    x, y = made_pair()
    found = gap.distribution_gap(x, y, bandwidth=0.7)
    a, b = x.numpy(), y.numpy()
    mean = np.linalg.norm(a.mean(0) - b.mean(0))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    spread = np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert found["gap"] == pytest.approx(mean)
    assert found["Frechet gap"] == pytest.approx(mean**2 + spread, rel=1e-6)
    assert found["Frechet gap, centred"] == pytest.approx(spread, rel=1e-6)

    def mmd(a, b):
        def kernel(p, q):
            return np.exp(-((p[:, None] - q[None]) ** 2).sum(2) / (2 * 0.7**2))

        n, m = len(a), len(b)
        within = (kernel(a, a).sum() - n) / (n * (n - 1)) + (kernel(b, b).sum() - m) / (m * (m - 1))
        return within - 2 * kernel(a, b).mean()

    assert found["MMD gap"] == pytest.approx(mmd(a, b), abs=1e-12)
    assert found["MMD gap, centred"] == pytest.approx(mmd(a - a.mean(0), b - b.mean(0)), abs=1e-12)
    same = gap.distribution_gap(x, x)
    assert (same["gap"], same["Frechet gap"]) == pytest.approx((0, 0), abs=1e-9)


class Classes(Made):
    """Three classes far apart, of which the texts are the labels' own."""

    def __init__(self):
        super().__init__(captions=1, silent=0)
        self.labels = ["abc"[i % 3] for i in range(N)]
        for m, rows in self.kept.items():
            owner = torch.repeat_interleave(torch.arange(N), rows.counts)
            noise = 0.0 if m == "text" else 0.1 * torch.randn(len(owner), D, generator=torch.Generator().manual_seed(1))
            rows.values.copy_(torch.eye(D)[owner % 3] + noise)


def test_classes_that_lie_together_are_found():
    def figures(made):
        return gap.evaluate(made, [Method("raw", (None,))], ["image", "text"], resamples=2)["rows"]

    rows = figures(Classes())
    for metric in ("V-measure", "ARI", "linear probe top-1", "zero-shot top-1"):
        assert value(rows, task="image", metric=metric)["value"] == pytest.approx(1)
    assert not [r for r in rows if r["task"] == "text" and r["metric"].startswith("zero-shot")]
    mixed = Classes()
    mixed.labels = ["ab"[i // 30] for i in range(N)]  # says nothing of where they lie
    rows = figures(mixed)
    assert abs(value(rows, task="image", metric="ARI")["value"]) < 0.2
    assert value(rows, task="image", metric="linear probe top-1")["value"] < 0.8
    some = Classes()
    some.labels[:7] = [None] * 6 + [""]
    for rows in some.kept.values():
        rows.values[rows.offsets[0] : rows.offsets[7]] = 1.0  # where no class lies
    with collected() as notes:
        rows = figures(some)
    assert [str(n) for n in notes] == ["no label: figures of classes are of the 53 of 60 samples that have a label"]
    for metric in ("V-measure", "linear probe top-1", "zero-shot top-1"):
        assert (value(rows, task="image", metric=metric)["value"], value(rows, task="image", metric=metric)["n"]) == (1, 53)
    mixed.labels = [None] * N
    assert not [r for r in figures(mixed) if r["metric"] == "ARI"]


def test_groups_are_scikit_learns_and_say_what_is_wrong():
    from sklearn.metrics import adjusted_rand_score, v_measure_score

    z = F.normalize(torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = [i % 4 for i in range(60)]
    found = groups.clustering(z, labels, seed=1)
    clusters = KMeans(4, n_init=10, random_state=1).fit_predict(z.double().numpy())
    assert found == {"V-measure": v_measure_score(labels, clusters), "ARI": adjusted_rand_score(labels, clusters)}
    classes = F.normalize(torch.randn(9, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    order = (z @ classes.T).argsort(1, descending=True)
    right = [{i % 9, (i + 1) % 9} for i in range(60)]
    expected = np.mean([int(order[i, 0]) in right[i] for i in range(60)])
    assert groups.zero_shot(z, right, classes)["zero-shot top-1"] == pytest.approx(expected)
    for wrong, words in (
        (lambda: groups.clustering(z, [0] * 60), "at least 2 different labels"),
        (lambda: groups.clustering(z, labels[:5]), "one label a row"),
        (lambda: groups.zero_shot(z, [9] * 60, classes), "of class 9"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()


def test_retrieval_figures_are_those_of_the_protocol():
    made = Made(captions=1, silent=0, noise=1.5)
    rows = search.evaluate(made, [Method("raw", (None,))], ["video", "audio"])["rows"]
    z = {m: embed_mean(made.kept[m], torch.nn.Identity()) for m in ("text", "video", "audio")}
    found = search.retrieval_figures(z["text"], {m: z[m] for m in ("video", "audio")})
    assert len(found) == 2 * (2 * 7 + 3 * 8)
    for metric in ("R@1", "mAP", "nDCG@10"):
        theirs = value(rows, label="T-VA volume", task="T->VA", metric=metric)["value"]
        assert found[f"T->VA volume|{metric}"] == pytest.approx(theirs)
    gain = value(rows, label="T-VA centroid", task="VA->T", metric=search.GAIN)["value"]
    assert found["VA->T centroid|gain"] == pytest.approx(gain)


def test_a_shifted_modality_has_a_larger_gap_with_certainty(tmp_path):
    near = trained(tmp_path / "near", 1) / "heads"
    far = trained(tmp_path / "far", 1) / "heads"
    moved = Head(D, D, 4)
    moved.load_state_dict(head("audio", far, None).state_dict())
    moved.linear.bias.data += 1.5
    save_head(moved, far / "audio")
    rows = gap.evaluate(Made(), [Method("near", (near,)), Method("far", (far,))], ["image", "audio"], resamples=8)[
        "differences"
    ]
    assert value(rows, metric="gap")["high"] < 0
    assert value(rows, metric="gap")["method"] == "near - far"


def test_the_map_is_repeatable():
    z, _ = gap.embed(Made(), ["image", "text"], None, None, limit=40)
    assert {len(v) for v in z.values()} == {40}
    one, again = gap.project(z, seed=3), gap.project(z, seed=3)
    assert one == again
    assert np.array(one["text"]).shape == (40, 2)
    both = np.concatenate([one["text"], one["image"]])
    assert (both.min(), both.max()) == (0, 1)


def test_a_released_checkpoint_is_a_method_of_its_own_encoders(tmp_path):
    """Names as released; the encoders' weights stand for themselves by one tensor each."""
    torch.manual_seed(0)
    heads = {"video": torch.randn(5, D), "text": torch.randn(5, D)}
    state = {
        "vision_encoder.visual.cls_token": torch.zeros(1, 1, 4),
        "multimodal_encoder.bert.embeddings.word_embeddings.weight": torch.zeros(3, 4),
        "contra_head_v.linear.weight": heads["video"],
        "contra_head_t.linear.weight": heads["text"],
    }
    torch.save(state, tmp_path / "model_step.pt")
    (method,) = parse([f"gram={tmp_path / 'model_step.pt'}"])
    x = torch.randn(3, D)
    assert torch.allclose(head("video", method.runs[0], None)(x), x @ heads["video"].T, atol=1e-5)
    assert len(digest(method.runs[0])) == 12
    with pytest.raises(InputError, match="no head for audio"):
        head("audio", method.runs[0], None)
    rows = search.evaluate(Made(), [method], ["video"])["rows"]
    assert {r["method"] for r in rows} == {"gram"}
