"""The prior between prompts and decoder: its formula, where it is applied, and where it is not."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tone, write_wav
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import multivariate_normal, vonmises_fisher
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.mixing import mix
from unialign_gen.pipelines import EmbeddingPrior
from unialign_gen.pipelines.prompts import generators, picture_seeds

FEW = {"num_inference_steps": 2, "upscale": 1}


def unit(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def prior(points: torch.Tensor, **options: float) -> EmbeddingPrior:
    made = EmbeddingPrior(points.shape[1], len(points), **options)
    made.points.copy_(points)
    return made


def test_it_is_the_posterior_mean_under_von_mises_fisher_noise():
    """Bayes' rule with SciPy's density: every known point as likely before, the prompt a noisy view of one of them."""
    points, seen, temperature = unit(7, 3), unit(5, 3, seed=1), 0.2
    likely = np.stack([vonmises_fisher(x.numpy().astype(float), 1 / temperature).pdf(seen.numpy()) for x in points], axis=1)
    mean = (likely / likely.sum(1, keepdims=True)) @ points.numpy()
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    got = prior(points, bandwidth=temperature)(seen, strength=1)
    assert np.allclose(got.numpy(), mean, atol=1e-5)


def test_it_is_the_posterior_mean_under_gaussian_noise():
    """Bayes' rule with SciPy's density: known points as likely before as they have been seen, noise of one covariance."""
    points, seen, temperature, counts = unit(6, 4), unit(5, 4, seed=1), 2.0, [1, 2, 9, 4, 1, 30]
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)) * 0.3
    covariance = root @ root.T + 0.02 * torch.eye(4)
    known = prior(points, bandwidth=temperature)
    known.log_counts.copy_(torch.tensor(counts).log())
    known.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))
    noise = multivariate_normal(cov=temperature * covariance.numpy())
    likely = np.array([[n * noise.pdf((e - x).numpy()) for x, n in zip(points, counts, strict=True)] for e in seen])
    mean = (likely / likely.sum(1, keepdims=True)) @ points.numpy()
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    assert np.allclose(known(seen, strength=1).numpy(), mean, atol=1e-5)


def test_the_likeliest_point_may_stand_for_the_mean():
    points, seen = unit(6, 4), unit(5, 4, seed=1)
    known, chosen = prior(points, bandwidth=0.2), prior(points, bandwidth=1e-6)
    known.register_to_config(likeliest=True)
    assert torch.allclose(known(seen, strength=1), chosen(seen, strength=1), atol=1e-6)


def test_strength_goes_from_the_prompt_to_the_mean():
    known = prior(unit(4, 8), bandwidth=0.1, strength=0.25)
    seen = unit(3, 8, seed=1)
    assert torch.equal(known(seen, strength=0), seen)
    assert torch.allclose(known(seen), F.normalize(0.75 * seen + 0.25 * known(seen, strength=1), dim=1), atol=1e-6)


def test_a_known_point_stays_where_it_is_when_others_are_far():
    points = torch.eye(6)
    assert torch.allclose(prior(points, bandwidth=0.05)(points, strength=1), points, atol=1e-6)


def saying(points: torch.Tensor, scale: float = 1.0, **shifts: torch.Tensor) -> EmbeddingPrior:
    """A prior whose pictures of a thing differ by `scale` everywhere, and are moved by colours along the last axes and by
    layouts along those before, by `shifts` (n, k) in whitened coordinates.
    """
    made = EmbeddingPrior(points.shape[1], len(points), 0.05, 1.0, **{name: tuple(x.shape) for name, x in shifts.items()})
    made.points.copy_(points)
    made.whitening.div_(scale)
    end = points.shape[1]
    for name, shift in shifts.items():
        start = end - shift.shape[1]
        made.get_buffer(f"{name[:-1]}_axes").copy_(torch.eye(points.shape[1])[start:end])
        made.get_buffer(f"{name[:-1]}_shifts").copy_(shift)
        end = start
    return made


def test_of_what_a_prompt_differs_in_only_the_colour_that_it_says_stays():
    """Bayes' rule with SciPy's density: half of the prompts say one of three colours; pictures have theirs."""
    colours, scale = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-2.0, -2.0]]), 0.1
    known = saying(torch.eye(6)[:2], scale, colours=colours)
    noise = multivariate_normal(cov=known.config["spread"] ** 2 * np.eye(2))
    for said in ([4.0, 0.2], [0.1, -0.1], [1.0, 1.6], [-1.2, -1.3]):
        seen = torch.tensor([1.0, 0.05, 0.03, -0.05, *(scale * x for x in said)]).float()  # before it is brought to norm 1
        none, *each = (float(noise.pdf(np.array(said) - c)) for c in ([0, 0], *colours.numpy()))
        for picture in (True, False):
            stays = 1.0 if picture else np.mean(each) / (none + np.mean(each))
            expected = F.normalize(torch.tensor([1.0, 0, 0, 0, *(stays * scale * x for x in said)]).float(), dim=0)
            moved = known._moved(seen, 1.0, 0.0, None, picture)
            assert torch.allclose(F.normalize(moved, dim=0), expected, atol=1e-4)
    half = known._moved(seen, 0.5, 0.0, None, False)
    assert torch.allclose(half, (seen + moved) / 2, atol=1e-5)


def test_a_prompt_that_says_a_layout_is_no_one_thing_and_stays_where_it_is():
    known = saying(torch.eye(6)[:2], 0.1, colours=torch.tensor([[3.0]]), layouts=torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    says = F.normalize(torch.tensor([[1.0, 0.2, 0.1, 0.0, 0.9, 0.3]]), dim=1)
    assert torch.allclose(known(says), says, atol=1e-5)
    drawn = known(says, temperature=1.0, generator=0)
    assert torch.allclose(drawn, says, atol=1e-5)
    silent = F.normalize(torch.tensor([[1.0, 0.2, 0.1, 0.1, 0.1, 0.0]]), dim=1)
    assert torch.allclose(known(silent), torch.eye(6)[:1], atol=0.02)


def test_the_draw_has_the_covariance_of_pictures_of_one_thing():
    """Against NumPy's covariance of many draws, tangent to the sphere, where it hardly bends."""
    root = 0.01 * torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    covariance = root @ root.T + 1e-5 * torch.eye(6)
    known = prior(torch.eye(6)[:1], bandwidth=0.05, strength=1.0)
    known.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))
    rows = torch.eye(6)[:1].expand(8000, 6)
    drawn = known(rows, temperature=1.0, generator=torch.Generator().manual_seed(0))[:, 1:].numpy()
    expected = covariance[1:, 1:].numpy()
    assert np.abs(np.cov(drawn.T) - expected).max() < 0.06 * np.abs(expected).max()
    twice = known(rows[:3000], temperature=2.0, generator=torch.Generator().manual_seed(0))[:, 1:].numpy()
    assert np.cov(twice.T).trace() == pytest.approx(4 * expected.trace(), rel=0.08)


def test_a_colour_that_a_prompt_says_is_not_drawn_anew():
    """A prompt in a colour keeps it, one at the thing's mean is drawn along its direction too."""
    width = 0.1
    known = saying(torch.eye(5)[:1], width, colours=torch.tensor([[4.0]]))
    says, silent = torch.tensor([1.0, 0, 0, 0, 4 * width]), torch.eye(5)[0]
    for point, spared in ((says, True), (silent, False)):
        rows = F.normalize(point, dim=0).expand(1500, 5)
        drawn = known(rows, temperature=1.0, generator=torch.Generator().manual_seed(0))
        drawn = drawn / drawn[:, :1]  # away from the sphere again
        assert float(drawn[:, 4].std()) == pytest.approx(0.0 if spared else width, abs=0.45 * width)
        assert float(drawn[:, 2].std()) == pytest.approx(width, rel=0.15)


def test_the_draw_follows_the_generator_and_rows_with_one_seed_share_it():
    known = saying(unit(4, 6), 0.14, colours=torch.tensor([[4.0]]))
    rows = unit(1, 6, seed=3).expand(3, 6)

    def seeded(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    one = known(rows, temperature=1.0, generator=seeded(0)[0])
    assert torch.equal(one, known(rows, temperature=1.0, generator=seeded(0)[0]))
    assert not torch.allclose(one[0], one[1], atol=1e-2)
    shared = known(rows, temperature=1.0, generator=seeded(7, 7, 8))
    assert torch.equal(shared[0], shared[1])
    assert not torch.allclose(shared[0], shared[2], atol=1e-2)
    assert torch.equal(known(rows, temperature=0.0, generator=seeded(1)[0]), known(rows))
    assert torch.allclose(shared.norm(dim=1), torch.ones(3), atol=1e-6)


def test_of_the_likeliest_kind_it_is_the_likeliest_thing():
    """Two bears, a panda and a polar bear, are together likelier than a dog that is likelier than either."""
    things = F.normalize(torch.tensor([[1.0, 0.3, 0], [1.0, -0.3, 0.02], [1.0, 0, 0.28]]), dim=1)
    prompt = F.normalize(torch.tensor([1.0, 0.0, 0.02]), dim=0)
    alone, kinds = (EmbeddingPrior(3, 3, 0.03, 1.0, likeliest=True, **of) for of in ({}, {"kinds": 2}))
    for known in (alone, kinds):
        known.points.copy_(things)
    kinds.kind_of.copy_(torch.tensor([1, 1, 0]))
    weights = torch.from_numpy(np.exp(-((things - prompt).numpy() ** 2).sum(1) / 0.06))
    assert weights[2] > weights[:2].max()
    assert weights[2] < weights[:2].sum()
    assert alone.likeliest(prompt) == 2
    assert kinds.likeliest(prompt) == int(weights[:2].argmax())
    assert torch.allclose(kinds(prompt[None]), things[kinds.likeliest(prompt)][None], atol=1e-6)


def with_pictures(**options) -> EmbeddingPrior:
    """Two things of six dimensions, five pictures of the first and one of the second."""
    made = EmbeddingPrior(6, 2, 0.05, 1.0, colours=(1, 1), pictures=6, **options)
    made.points.copy_(torch.eye(6)[:2])
    made.whitening.copy_(torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6])))
    made.colour_axes.copy_(torch.eye(6)[5:])
    made.colour_shifts.fill_(4.0)
    made.deviations.copy_(torch.randn(6, 6, generator=torch.Generator().manual_seed(4)))
    made.shows.copy_(torch.tensor([0, 0, 1, 0, 0, 0]))
    return made


def test_a_prior_with_pictures_draws_how_these_differ_from_their_thing():
    """Each draw is one of the thing's own, all about equally often; a thing with few of them stays at its mean."""
    known, rows, own = with_pictures(), 600, [0, 1, 3, 4, 5]
    expected = F.normalize(torch.eye(6)[0] + 0.5 * known.deviations[own] / known.whitening.diagonal(), dim=1)  # (5, d)
    drawn = known(torch.eye(6)[0].expand(rows, 6), temperature=0.5, generator=generators(0, rows, 1))
    apart, which = torch.cdist(drawn, expected, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert float(apart.max()) < 1e-4
    assert (torch.bincount(which, minlength=5) > rows / 5 / 1.5).all()
    assert torch.equal(known(torch.eye(6)[1:2], temperature=0.5), known(torch.eye(6)[1:2]))
    for first in (0, 3, 10, 7 * 10**18):  # seeds that follow each other: every picture once, before any twice
        seeded = known(torch.eye(6)[0].expand(5, 6), temperature=0.5, generator=range(first, first + 5))
        which = torch.cdist(seeded, expected, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        assert sorted(which.tolist()) == [0, 1, 2, 3, 4]
    both = [known(torch.eye(6)[0].expand(2, 6), temperature=0.5, generator=np.int64(seed)) for seed in (7, 8)]
    assert len(torch.cat(both).unique(dim=0)) == 4  # two things of a picture, and of the next


def test_the_first_seed_draws_the_picture_nearest_to_the_prompt_and_the_next_those_behind_it():
    known, own = with_pictures(), [0, 1, 3, 4, 5]
    seen = F.normalize(torch.eye(6)[0] + 0.2 * known.deviations[4] / known.whitening.diagonal(), dim=0)
    apart = [float(((seen - torch.eye(6)[0]) * known.whitening.diagonal() - known.deviations[n]).norm()) for n in own]
    order = [own[n] for n in np.argsort(apart)]
    expected = F.normalize(known(seen[None])[0] + 0.5 * known.deviations[order] / known.whitening.diagonal(), dim=1)
    drawn = known(seen.expand(5, 6), temperature=0.5, generator=range(5))
    assert torch.allclose(drawn[:, :5], expected[:, :5], atol=2e-2)  # the last axis is a colour's
    assert torch.cdist(drawn[:, :5], expected[:, :5]).argmin(1).tolist() == [0, 1, 2, 3, 4]


def test_what_is_drawn_better_comes_earlier_but_for_a_picture(tmp_path):
    """The picture that would be the last of five is the first where it is drawn far better, and stays where a bit."""
    known, own, prompt = with_pictures(fidelities=True), [0, 1, 3, 4, 5], F.normalize(torch.ones(6) / torch.arange(1, 7), dim=0)

    def order(picture=False):
        drawn = known(prompt.expand(5, 6), temperature=0.5, generator=range(5), pictures=[picture] * 5)
        mean = known(prompt[None], pictures=[picture])[0]
        expected = F.normalize(mean + 0.5 * known.deviations[own] / known.whitening.diagonal(), dim=1)
        return torch.cdist(drawn[:, :5], expected[:, :5]).argmin(1).tolist()

    first = order()
    assert sorted(first) == [0, 1, 2, 3, 4]
    known.fidelity[own[first[-1]]] = 1e-4
    assert order() == first
    known.fidelity[own[first[-1]]] = 1.0
    assert order() == [first[-1], *first[:-1]]
    assert order(picture=True) == first
    known.save_pretrained(tmp_path)
    assert torch.equal(EmbeddingPrior.from_pretrained(tmp_path).fidelity, known.fidelity)


def test_a_picture_is_what_pictures_near_it_are():
    """Faces and figures of a thing lie on both sides of another thing's mean: SciPy's kernel density tells them apart."""
    known = EmbeddingPrior(3, 2, bandwidth=0.5, strength=1.0, neighbours=(30, 2), picture_bandwidth=0.5, likeliest=True)
    axes, many = torch.eye(3), torch.Generator().manual_seed(0)
    known.points.copy_(F.normalize(torch.tensor([[0.0, 0, 1], [0.1, 0.1, 1]]), dim=1))
    sides = torch.tensor([[-0.5, 0.0]] * 10 + [[0.5, 0.0]] * 10 + [[0.1, 0.1]] * 10)
    shown = sides + 0.1 * torch.randn(30, 2, generator=many)
    known.whitening.mul_(10)
    known.neighbour_axes.copy_(axes[:2])
    known.neighbour_values.copy_((shown * 10 * 6).round())
    known.neighbour_shows.copy_(torch.tensor([0] * 20 + [1] * 10))
    seen = F.normalize(torch.tensor([[0.4, 0.02, 0.9]]), dim=1)
    density = [multivariate_normal(cov=0.5 * np.eye(2)).pdf(10 * (seen[0, :2].numpy() - x)) for x in shown.numpy()]
    expected = np.log([sum(density[:20]), sum(density[20:])])
    got = known.log_weights(seen[0], picture=True)
    assert float(got[0] - got[1]) == pytest.approx(expected[0] - expected[1], abs=0.6)  # eight bits
    assert torch.equal(known(seen, pictures=[True]), known.points[:1])
    assert torch.equal(known(seen, pictures=[False]), known(seen))
    assert torch.allclose(known(seen), known.points[1:], atol=1e-6)


def test_pictures_and_videos_are_looked_up_among_pictures_and_texts_and_sounds_not(starter, monkeypatch):
    asked = []
    weights = EmbeddingPrior.log_weights

    def looked(self, row, picture=False):
        asked.append(picture)
        return weights(self, row, picture)

    monkeypatch.setattr(EmbeddingPrior, "log_weights", looked)
    starter.embed(image=Image.new("RGB", (64, 64), "red"))
    starter.embed(video=np.zeros((4, 32, 32, 3), np.uint8))
    assert asked == [True, True]
    asked.clear()
    starter.embed(text="a dog", audio=(16000, tone(1, 16000)))
    assert set(asked) == {False}


def test_a_prior_with_pictures_keeps_the_colour_that_a_prompt_says():
    known, says = with_pictures(), F.normalize(torch.tensor([[1.0, 0, 0, 0, 0, 4 / 6]]), dim=1)
    drawn = known(says.expand(50, 6), temperature=0.5, generator=torch.Generator().manual_seed(0))
    kept = known.deviations * torch.tensor([1.0, 1, 1, 1, 1, 0])
    mean = torch.eye(6)[0] + says * torch.eye(6)[5]
    expected = F.normalize(mean + 0.5 * kept / known.whitening.diagonal(), dim=1)
    apart = torch.cdist(drawn, expected, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(apart.amin(1).max()) < 1e-3


def test_pictures_are_drawn_at_the_priors_own_temperature_and_embeddings_at_its_mean(starter):
    own = float(starter.prior.config["temperature"])
    assert own > 0
    assert torch.equal(starter.embed(text="a dog"), starter.embed(text="a dog", seed=3, prior_temperature=0))
    drawn = starter(text="a dog", seed=3, num_images_per_prompt=2, **FEW)
    assert drawn.request.prior_temperature == own
    named = starter(text="a dog", seed=3, num_images_per_prompt=2, prior_temperature=own, **FEW)
    assert [a.tobytes() for a in drawn.images] == [a.tobytes() for a in named.images]
    assert starter(text="a dog", seed=3, prior_strength=0, **FEW).request.prior_temperature is None


def test_a_draw_that_cannot_be_made_is_refused():
    known = prior(unit(4, 6))
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature must be 0 or more"):
            known(unit(2, 6), temperature=wrong)
    with pytest.raises(InputError, match="1 generators for 2 pictures"):
        known(unit(2, 6), temperature=1.0, generator=[torch.Generator()])


def test_a_prompt_does_not_depend_on_its_batch():
    known, seen = prior(unit(300, 64)), unit(9, 64, seed=1)
    assert torch.equal(known(seen), torch.cat([known(row[None]) for row in seen]))


def test_half_precision_computes_in_full():
    points, seen = unit(50, 16), unit(4, 16, seed=1)
    assert torch.allclose(prior(points).half()(seen), prior(points)(seen), atol=2e-3)


def test_prompts_are_moved_before_they_are_mixed_and_ready_embeddings_not(starter):
    """So a negative weight still steers away, and what was embedded once is not moved twice."""
    own = starter.aligner.embed("text", ["a cat", "a lion"])
    a, b = starter.prior(own)
    assert not torch.allclose(a, own[0], atol=1e-3)
    got = starter.embed(text=("a cat", "a lion"), weights={"text": (1, -0.4)})[0]
    assert torch.allclose(got, mix([a, b], [1, -0.4]), atol=1e-5)
    assert torch.allclose(starter.embed(text="a cat", prior_strength=0), own[:1], atol=1e-6)
    assert torch.allclose(starter.embed(embeds=own[0]), own[:1], atol=1e-6)
    assert torch.allclose(starter.embed(embeds=a, text="a lion")[0], mix([b, a]), atol=1e-5)


def test_a_call_draws_what_embed_gives(starter):
    for strength in (None, 0.0, 1.0):
        point = starter.embed(text="a dog", prior_strength=strength)
        drawn = [
            np.asarray(starter(seed=0, **given, **FEW).images[0]).astype(int)
            for given in (
                {"text": "a dog", "prior_strength": strength, "prior_temperature": 0, "best_of": 1},
                {"embeds": point},
            )
        ]
        assert np.abs(drawn[0] - drawn[1]).max() <= 1


def test_a_strength_with_nothing_to_move_is_refused(starter):
    point = starter.embed(text="a dog")
    with pytest.raises(InputError, match="embeds are drawn where they are"):
        starter(embeds=point, prior_strength=0.5, **FEW)
    with pytest.raises(InputError, match="leave out prior_strength"):
        starter(image_embeds=point * 16, prior_strength=0.5, **FEW)
    with pytest.raises(InputError, match="bandwidth must be above 0"):
        EmbeddingPrior(8, 1, bandwidth=0.0)
    with pytest.raises(InputError, match="prior_strength must be"):
        EmbeddingPrior(8, 1, strength=1.2)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_its_range_is_refused(starter, strength):
    with pytest.raises(InputError, match=r"prior_strength must be (at (least|most)|a finite)"):
        starter(text="a dog", prior_strength=strength, **FEW)


def test_a_checkpoint_without_one_draws_prompts_as_they_are(starter, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(
        shipped_folder() / "starter", folder, ignore=shutil.ignore_patterns("kandinsky-distilled", "stable-unclip", "prior")
    )
    index = json.loads((folder / "model_index.json").read_text())
    del index["prior"]  # as in folders from before there was one
    (folder / "model_index.json").write_text(json.dumps(index))
    plain = unialign_gen.load(str(folder))
    assert plain.prior is None
    assert torch.allclose(plain.embed(text="a dog"), starter.embed(text="a dog", prior_strength=0), atol=1e-6)
    assert plain.embed(text="a dog", prior_strength=0).shape == (1, 256)
    with pytest.raises(InputError, match="this checkpoint has no prior"):
        plain.embed(text="a dog", prior_strength=0.5)
    plain.save_pretrained(tmp_path / "again")
    assert unialign_gen.load(str(tmp_path / "again")).prior is None


def test_it_is_saved_with_the_pipeline_and_shared_by_the_second_decoder(starter, tmp_path):
    starter.save_pretrained(tmp_path)
    again = unialign_gen.load(str(tmp_path))
    for name, kept in starter.prior.state_dict().items():
        assert torch.equal(again.prior.state_dict()[name], kept), name
    assert again.prior.config["bandwidth"] == starter.prior.config["bandwidth"]
    second = unialign_gen.load("starter", decoder="stable-unclip")
    assert torch.equal(second.prior.points, starter.prior.points)


def test_the_starters_points_are_unit_vectors(starter):
    norms = starter.prior.points.float().norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=2e-3)


def test_the_command_line_takes_a_strength(tmp_path):
    files = []
    for i, options in enumerate(([], ["--prior-strength", "0"])):
        files.append(tmp_path / f"{i}.safetensors")
        assert CliRunner().invoke(app, ["embed", "--text", "a cat", "--out", str(files[-1]), *options]).exit_code == 0
    moved, own = (load_file(f)["text"] for f in files)
    assert not torch.allclose(moved, own, atol=1e-3)
    wrong = CliRunner().invoke(app, ["embed", "--text", "a cat", "--out", str(files[0]), "--prior-strength", "2"])
    assert wrong.exit_code == 2


def test_a_film_refuses_a_strength_before_the_recording_is_heard(starter, tmp_path, monkeypatch):
    from unialign_gen.film import make as film

    sound = write_wav(tmp_path / "a.wav", tone(1, 44100), 44100)
    monkeypatch.setattr(film, "listen", lambda *_: pytest.fail("heard"))
    with pytest.raises(InputError, match="prior_strength must be between 0 and 1, got 2"):
        film.make_film(starter, sound, tmp_path / "x.mp4", prior_strength=2.0, **FEW)
    prior = starter.prior
    starter.register_modules(prior=None)
    with pytest.raises(InputError, match="this checkpoint has no prior"):
        film.make_film(starter, sound, tmp_path / "x.mp4", prior_strength=0.5, **FEW)
    starter.register_modules(prior=prior)  # not an assignment, after which `save_pretrained` would leave it out


def test_a_films_moments_are_moved(starter, tmp_path, monkeypatch):
    from unialign_gen.film import make as film

    sound = write_wav(tmp_path / "a.wav", tone(1, 44100), 44100)
    seen = []

    def keep(pipeline, track, *args, **options):
        seen.append(track.points)
        raise KeyboardInterrupt

    monkeypatch.setattr(film, "draw_track", keep)
    for strength in (None, 0.0):
        with pytest.raises(KeyboardInterrupt):
            film.make_film(starter, sound, tmp_path / "x.mp4", prior_strength=strength, **FEW)
    own, draws = starter.prior.config["temperature"], picture_seeds(0, len(seen[1]), 1)
    assert torch.allclose(seen[0], starter.prior(seen[1], temperature=own, generator=draws), atol=1e-6)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_a_difference_without_colour_has_none_of_it(starter):
    """Along the directions of colours, orthonormal after whitening, nothing of it is left, and all of the rest is."""
    prior = starter.prior
    offset = torch.randn(256, generator=torch.Generator().manual_seed(0))
    left = prior.without_colour(offset)
    white, named = prior.whitening.float(), prior.colour_axes.float()
    there, remains = (((x @ white) @ named.T).norm() for x in (offset, left))
    assert float(remains) < 1e-3 * float(there)
    gone = (offset - left) @ white
    assert float(((gone @ named.T) @ named - gone).norm()) < 1e-3 * float(gone.norm())
    assert torch.equal(EmbeddingPrior(256, 5).without_colour(offset), offset)  # which knows no colours


def test_a_picture_is_drawn_like_the_nearest_picture_of_its_kind():
    """A text like the nearest of its thing."""
    torch.manual_seed(0)
    prior = EmbeddingPrior(8, 3, 0.03, 1.0, likeliest=True, kinds=2, pictures=12)
    prior.points.copy_(F.normalize(torch.eye(8)[:3] + 0.5, dim=1))
    prior.kind_of.copy_(torch.tensor([0, 0, 1]))
    prior.log_counts.copy_(torch.tensor([1e4, 0.0, 0.0]))  # the first thing, whatever is asked
    prior.shows.copy_(torch.arange(3).repeat_interleave(4))
    prior.deviations.copy_(0.2 * torch.randn(12, 8))
    shown = F.normalize(prior.points[prior.shows] + prior.deviations, dim=1)
    for prompt in (shown[1], shown[6]):
        moved, half = (prior(prompt[None], temperature=t, generator=[0], pictures=[True]) for t in (1.0, 0.5))
        torch.testing.assert_close(moved, prompt[None])
        n = int((shown - prompt).square().sum(1).argmin())
        torch.testing.assert_close(half[0], F.normalize(prior.points[prior.shows[n]] + prior.deviations[n] / 2, dim=0))
        (text,) = prior(prompt[None], temperature=1.0, generator=[0])
        own = (prior.points[0] + prior.deviations[:4] - prompt).square().sum(1)
        assert torch.allclose(text, shown[own.argmin()], atol=1e-6)
