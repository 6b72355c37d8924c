"""The prior between prompts and decoder: its formula, where it is applied, and where it is not."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tone, write_wav
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


def styled(points: torch.Tensor, named: torch.Tensor, moves: torch.Tensor, covariance: torch.Tensor) -> EmbeddingPrior:
    """A prior with directions: `named` (k, d) and `moves` in whitened coordinates, `covariance` (d, d) within a thing."""
    made = EmbeddingPrior(points.shape[1], len(points), 0.05, 1.0, len(named), 2.0)
    made.points.copy_(points)
    made.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))
    made.named.copy_(named)
    made.moves.copy_(made.whitening @ moves @ torch.linalg.inv(made.whitening))
    return made


def test_a_prompt_moves_in_the_directions_that_tell_things_apart_and_keeps_the_others():
    """Two things apart along the first axis; the prompt lies beside the first of them, in a style along the third."""
    axes = torch.eye(4)
    known = styled(axes[:2], axes[3:], torch.diag(torch.tensor([1.0, 1, 0, 0])), 0.01 * axes)
    seen = F.normalize(torch.tensor([[0.8, 0.3, 0.4, 0.2]]), dim=1)
    moved = known(seen)[0]
    expected = F.normalize(torch.tensor([1.0, 0, seen[0, 2], seen[0, 3]]), dim=0)
    assert torch.allclose(moved, expected, atol=1e-3)
    half = known(seen, strength=0.5)[0]
    assert torch.allclose(half, F.normalize(0.5 * (seen[0] + torch.tensor([1.0, 0, *seen[0, 2:]])), dim=0), atol=1e-3)


def test_the_draw_has_the_covariance_of_pictures_of_one_thing():
    """Against NumPy's covariance of many draws, tangent to the sphere, where it hardly bends."""
    root = 0.01 * torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    covariance = root @ root.T + 1e-5 * torch.eye(6)
    known = styled(torch.eye(6)[:1], torch.zeros(0, 6), torch.zeros(6, 6), covariance)
    rows = torch.eye(6)[:1].expand(8000, 6)
    drawn = known(rows, temperature=1.0, generator=torch.Generator().manual_seed(0))[:, 1:].numpy()
    expected = covariance[1:, 1:].numpy()
    assert np.abs(np.cov(drawn.T) - expected).max() < 0.06 * np.abs(expected).max()
    twice = known(rows[:3000], temperature=2.0, generator=torch.Generator().manual_seed(0))[:, 1:].numpy()
    assert np.cov(twice.T).trace() == pytest.approx(4 * expected.trace(), rel=0.08)


def test_what_a_prompt_names_is_not_drawn_anew():
    """A prompt far out along the named direction keeps it, one at the thing's mean is drawn along it too."""
    axes, width = torch.eye(5), 0.1
    known = styled(axes[:1], axes[4:], torch.zeros(5, 5), width**2 * axes)
    says, silent = torch.tensor([1.0, 0, 0, 0, 2.5 * width]), axes[0]  # 2.5 standard deviations, where 2 say everything
    for point, spared in ((says, True), (silent, False)):
        rows = F.normalize(point, dim=0).expand(1500, 5)
        drawn = known(rows, temperature=1.0, generator=torch.Generator().manual_seed(0))
        drawn = drawn / drawn[:, :1]  # away from the sphere again
        assert float(drawn[:, 4].std()) == pytest.approx(0.0 if spared else width, abs=0.35 * width)
        assert float(drawn[:, 2].std()) == pytest.approx(width, rel=0.15)


def test_the_draw_follows_the_generator_and_rows_with_one_seed_share_it():
    known = styled(unit(4, 6), torch.eye(6)[5:], torch.zeros(6, 6), 0.02 * torch.eye(6))
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


def with_pictures(**options) -> EmbeddingPrior:
    """Two things of six dimensions, five pictures of the first and one of the second."""
    made = EmbeddingPrior(6, 2, 0.05, 1.0, 1, 2.0, pictures=6, **options)
    made.points.copy_(torch.eye(6)[:2])
    made.whitening.copy_(torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6])))
    made.named.copy_(torch.eye(6)[5:])
    made.deviations.copy_(torch.randn(6, 6, generator=torch.Generator().manual_seed(4)))
    made.shows.copy_(torch.tensor([0, 0, 1, 0, 0, 0]))
    return made


def test_a_prior_with_pictures_draws_how_these_differ_from_their_thing():
    """Each draw is one of the thing's own, all about equally often; a thing with few of them stays at its mean."""
    known, rows, own = with_pictures(), 600, [0, 1, 3, 4, 5]
    expected = F.normalize(torch.eye(6)[0] + 0.5 * known.deviations[own] / known.whitening.diagonal(), dim=1)  # (5, d)
    drawn = known(torch.eye(6)[0].expand(rows, 6), temperature=0.5, generator=generators(0, rows, 1))
    apart, which = torch.cdist(drawn, expected, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert float(apart.max()) < 1e-5
    assert (torch.bincount(which, minlength=5) > rows / 5 / 1.5).all()
    assert torch.equal(known(torch.eye(6)[1:2], temperature=0.5), known(torch.eye(6)[1:2]))
    for first in (0, 3, 10, 7 * 10**18):  # seeds that follow each other: every picture once, before any twice
        seeded = known(torch.eye(6)[0].expand(5, 6), temperature=0.5, generator=range(first, first + 5))
        which = torch.cdist(seeded, expected, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        assert sorted(which.tolist()) == [0, 1, 2, 3, 4]
    both = [known(torch.eye(6)[0].expand(2, 6), temperature=0.5, generator=np.int64(seed)) for seed in (7, 8)]
    assert len(torch.cat(both).unique(dim=0)) == 4  # two things of a picture, and of the next


def test_a_prior_with_pictures_keeps_what_a_prompt_names():
    known, says = with_pictures(), F.normalize(torch.tensor([[1.0, 0, 0, 0, 0, 2.5 / 6]]), dim=1)  # 2 deviations say everything
    drawn = known(says.expand(50, 6), temperature=0.5, generator=torch.Generator().manual_seed(0))
    kept = known.deviations * torch.tensor([1.0, 1, 1, 1, 1, 0])
    expected = F.normalize(known(says) + 0.5 * kept / known.whitening.diagonal(), dim=1)
    apart = torch.cdist(drawn, expected, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(apart.amin(1).max()) < 1e-5


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


def test_a_difference_without_what_prompts_name_has_none_of_it(starter):
    """Colours, say: along those directions, orthonormal after whitening, nothing of it is left, and all of the rest is."""
    prior = starter.prior
    offset = torch.randn(256, generator=torch.Generator().manual_seed(0))
    left = prior.without_named(offset)
    white, named = prior.whitening.float(), prior.named.float()
    there, remains = (((x @ white) @ named.T).norm() for x in (offset, left))
    assert float(remains) < 1e-3 * float(there)
    gone = (offset - left) @ white
    assert float(((gone @ named.T) @ named - gone).norm()) < 1e-3 * float(gone.norm())
    assert torch.equal(EmbeddingPrior(256, 5).without_named(offset), offset)  # which knows no such directions
