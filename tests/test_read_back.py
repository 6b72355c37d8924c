"""The decoder's last training: its sampler against diffusers', its loss against closed forms, its loop, its quick reader."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from unialign_gen.checkpoints.recipe import (
    assemble,
    autoencoder,
    decoder_steps,
    diffusion,
    kandinsky,
    known,
    quick_look,
    read_back,
    training,
)
from unialign_gen.checkpoints.recipe.which import Which
from unialign_gen.encoders.efficientnet import EfficientNetLite
from unialign_gen.errors import InputError
from unialign_gen.heads import Head


class Pulling(torch.nn.Module):
    """A denoiser that knows the clean latents: what v would be if they were `embeds`, spread over the picture, times a gain."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, noisy, t, embeds):
        share = diffusion.scheduler().alphas_cumprod[t].view(-1, 1, 1, 1)
        clean = self.gain * embeds[:, :, None, None].expand_as(noisy)
        noise = (noisy - share.sqrt() * clean) / (1 - share).sqrt().clamp(min=1e-4)
        return share.sqrt() * noise - (1 - share).sqrt() * clean


class Mean(torch.nn.Module):
    """Reads latents as the direction of their mean; a second reader agrees."""

    def forward(self, latents, full, generator):
        return [F.normalize(latents.mean((2, 3)), dim=1)] * 2


def test_another_look_keeps_white_pages_even_and_moves_a_spot_a_little():
    page = torch.ones(16, 3, 64, 64)
    spotted = page.clone()
    spotted[..., 30:34, 30:34] = -1
    spotted.requires_grad_()
    looks = [read_back.disturbed(x, torch.Generator().manual_seed(3)) for x in (page, spotted)]
    light = looks[0].mean((1, 2, 3))
    assert float(light.std()) > 0.02  # another light each
    assert float((looks[0] - light[:, None, None, None]).std(dim=(1, 2, 3)).max()) < 0.09  # noise alone, no edge
    dark = (looks[0] - looks[1]).detach().mean(1)
    size, at = dark.sum((1, 2)), torch.arange(64) - 31.5
    for axis in (1, 2):
        middle = (dark.sum(3 - axis) * at).sum(1) / size
        assert 0.5 < float(middle.abs().max()) < 8
    assert 0.6 < float((size / (2 * 16 * light)).min()) < float((size / (2 * 16 * light)).max()) < 1.5  # scaled by area
    looks[1].sum().backward()
    assert float(spotted.grad.abs().min()) >= 0
    assert float(spotted.grad.abs().sum()) > 0


def test_most_prompts_are_moved_by_the_prior_and_the_rest_stay():
    seen = F.normalize(torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    north = F.one_hot(torch.tensor(0), 8).float()
    got = read_back.moved(seen, lambda e, strength: north.expand_as(e) * strength, torch.Generator().manual_seed(1))
    assert torch.allclose(got.norm(dim=1), torch.ones(4000), atol=1e-5)
    still = (got - seen).norm(dim=1) < 1e-5
    assert float(still.float().mean()) == pytest.approx(1 - read_back.MOVED, abs=0.03)
    least = F.normalize(0.8 * seen + 0.2 * north, dim=1)
    assert ((got[~still] @ north) >= (least[~still] @ north) - 1e-5).all()


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_drawing_is_diffusers_ddim(steps):
    torch.manual_seed(0)
    net = torch.nn.Conv2d(4, 4, 3, padding=1)
    noise = torch.randn(2, 4, 8, 8)
    theirs = DDIMScheduler.from_config(diffusion.scheduler().config)
    theirs.set_timesteps(steps)
    z = noise
    with torch.no_grad():
        for t in theirs.timesteps:
            z = theirs.step(net(z) + t / 1000, t, z, eta=0.0).prev_sample
        ours = diffusion.draw(lambda x, t: net(x) + t.view(-1, 1, 1, 1) / 1000, noise, (), steps)
    torch.testing.assert_close(ours, z, atol=1e-5, rtol=1e-5)


def test_the_gradient_goes_through_every_step():
    """Finite differences of a drawing's mean over the denoiser's one parameter."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def mean(a):
        return diffusion.draw(lambda z, t: a * z, noise, (), 5).square().mean()

    (exact,) = torch.autograd.grad(mean(a), a)
    with torch.no_grad():
        numeric = (mean(a + 1e-6) - mean(a - 1e-6)) / 2e-6
    assert float(exact) == pytest.approx(float(numeric), rel=1e-4)


def test_misreading_is_nothing_for_the_prompt_itself_and_known_for_an_opposite():
    known = F.normalize(torch.randn(7, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    point = known[:3]
    assert float(read_back.misread(point, point, known)) == pytest.approx(0, abs=1e-6)
    p, q = (point @ known.T / 0.1).softmax(1), (-point @ known.T / 0.1).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    assert float(read_back.misread(-point, point, known, 0.5)) == pytest.approx(2 + 0.5 * float(divergence), rel=1e-5)


def test_the_bank_holds_unit_means_of_what_several_pictures_show():
    embeds = F.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), dim=1)
    made = known.bank(embeds, ["a", "a", "b", "c"], least=2)
    torch.testing.assert_close(made, torch.full((1, 2), math.sqrt(0.5)))


def test_the_spread_within_things_is_the_pooled_covariance_shrunk_towards_a_sphere():
    points, shown = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), [i % 4 for i in range(39)] + ["alone"]
    points += torch.tensor([0.0, 5, 10, 15] * 10)[:, None]  # how far things lie apart is no part of it
    covariances = [np.cov(points[[s == thing for s in shown]].numpy().T) for thing in range(4)]
    pooled = sum(c * (shown.count(thing) - 1) for thing, c in enumerate(covariances)) / (40 - 5)
    wanted = 0.75 * pooled + 0.25 * np.eye(3) * np.trace(pooled) / 3
    assert np.allclose(known.spread(points, shown, 0.25).numpy(), wanted, atol=1e-5)


def test_the_prior_gives_a_picture_to_the_thing_that_discriminant_analysis_gives_it_to():
    """Two things that differ a little in one coordinate, always, and more in another, in which each of them varies freely."""
    generator = torch.Generator().manual_seed(0)
    side = torch.arange(400) % 2 * 0.4 - 0.2
    noise = torch.randn(400, 2, generator=generator)
    embeds = F.normalize(torch.stack([side + 0.03 * noise[:, 0], 2 * side + noise[:, 1], torch.ones(400)], dim=1), dim=1)
    shown = ["left" if s < 0 else "right" for s in side]
    made = assemble.prior(embeds[:300], shown[:300])
    assert made.log_counts.exp().tolist() == pytest.approx([150, 150])
    nearest = (made(embeds[300:], strength=1) @ made.points.T).argmax(1)
    plain = (embeds[300:] @ made.points.T).argmax(1)
    right = torch.arange(100) % 2
    assert (nearest == right).float().mean() > 0.97 > 0.9 > (plain == right).float().mean()


def run(folder, samples, model, lr=5e-4):
    embeds = F.normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    read_back.train(
        torch.randn(20, 4, 8, 8, generator=torch.Generator().manual_seed(1)).half(),
        torch.ones(20),
        lambda rows, generator: (embeds[rows],),
        lambda rows, generator: (embeds[rows], (embeds[rows],)),
        embeds[:5],
        Mean(),
        folder,
        model=model,
        samples=samples,
        minutes=5,
        batch=4,
        lr=lr,
    )
    return model


def test_drawings_come_to_be_read_as_their_prompts(tmp_path):
    class Lost(Pulling):  # it starts by drawing something else: its embeddings pass a random matrix
        def __init__(self):
            super().__init__()
            self.turn = torch.nn.Linear(4, 4, bias=False)

        def forward(self, noisy, t, embeds):
            return super().forward(noisy, t, self.turn(embeds))

    torch.manual_seed(3)
    model = Lost()
    prompts = F.normalize(torch.randn(64, 4), dim=1)

    def cosine():
        with torch.no_grad():
            drawn = diffusion.draw(model, torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(5)), (prompts,), 5)
        return float((Mean()(drawn, False, None)[0] * prompts).sum(1).mean())

    before = cosine()
    run(tmp_path, 4 * 200, model, lr=0.02)
    assert cosine() > before + 0.3


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch):
    whole = run(tmp_path / "a", 32, Pulling(0.5)).state_dict()
    monkeypatch.setattr(training.Clock, "left", lambda self: self.__dict__.setdefault("n", 0) < 4 and not self.tick())
    monkeypatch.setattr(training.Clock, "tick", lambda self: self.__dict__.update(n=self.n + 1), raising=False)
    stopped = run(tmp_path / "b", 32, Pulling(0.5)).state_dict()
    monkeypatch.undo()
    halves = run(tmp_path / "b", 32, Pulling(0.5)).state_dict()
    assert any(not torch.equal(a, stopped[k]) for k, a in whole.items())
    assert all(torch.allclose(a, halves[k], atol=1e-6) for k, a in whole.items())


def test_both_ways_read_the_same_picture(starter):
    """Every network reads every picture, as unit vectors; the first one's whole way is movq and the image space's own head."""
    part = copy.deepcopy(starter.aligner.part("image"))  # a reader changes the memory format of what it is given
    movq = copy.deepcopy(starter.movq)
    torch.manual_seed(0)
    quick = quick_look.QuickDecoder(8)
    other = EfficientNetLite("lite1").eval()
    small = Head(part.encoder.dim, 256, 16).eval()
    reader = read_back.Reader(movq, quick, part.head, [(part.encoder, small), (other, Head(other.dim, 256, 16).eval())])
    z = torch.randn(2, 8, 16, 16)
    for full in (True, False):
        read = reader(z, full, torch.Generator().manual_seed(0))
        assert len(read) == 2
        for points in read:
            assert points.shape == (2, 256)
            torch.testing.assert_close(points.norm(dim=1), torch.ones(2))
        with torch.no_grad():
            drawn = movq.decode(z, force_not_quantize=True).sample if full else quick(z)
            drawn = read_back.disturbed(drawn.clamp(-1.05, 1.05), torch.Generator().manual_seed(0))
            expected = small(part.encoder(drawn))
            if full:
                expected = part.head(part.encoder(F.interpolate(drawn, size=(160, 160), mode="bicubic")))
        torch.testing.assert_close(read[0], F.normalize(expected, dim=1), atol=1e-4, rtol=1e-3)
    assert quick(z).shape == (2, 3, 128, 128)
    x = z.clone().requires_grad_(True)
    sum(points.sum() for points in reader(x, False, torch.Generator().manual_seed(0))).backward()
    assert float(x.grad.abs().sum()) > 0


def test_steps_say_what_is_missing(tmp_path):
    """Neither a decoder nor a reader is made up where there is none."""
    for which in Which:
        with pytest.raises(InputError, match=r"holds no decoder yet.*restore"):
            decoder_steps.train_read_back(tmp_path, which, 1, 1, False)
    with pytest.raises(InputError, match=r"holds no decoder yet.*restore"):
        decoder_steps.train_quick_look(tmp_path, 1, 1, False)
    with pytest.raises(InputError, match=r"decoder holds no decoder yet.*restore"):
        decoder_steps.distill(tmp_path, 1, 1, False)
    with pytest.raises(InputError, match="run `quick-look` first"):
        decoder_steps.reader(tmp_path)


def test_a_stage_starts_from_the_last_before_it_and_never_behind_one(tmp_path):
    """unclip, distillation, read-back: the last one ships, and none is trained where a later one would hide it."""
    first, second = Which.kandinsky, Which.unclip
    places = [tmp_path / "unclip", tmp_path / "distillation", tmp_path / "read_back" / "unclip"]
    assert decoder_steps.furthest(tmp_path, second) == places[0]
    for at, place in enumerate(places):
        (place / "unet").mkdir(parents=True)
        assert decoder_steps.furthest(tmp_path, second) == place
        assert decoder_steps.furthest(tmp_path, second, place) == places[max(at - 1, 0)]
    (tmp_path / "decoder" / "unet").mkdir(parents=True)
    assert decoder_steps.furthest(tmp_path, first) == tmp_path / "decoder"
    with pytest.raises(InputError, match=r"read_back/unclip went on from .*distillation: move it away"):
        decoder_steps.distill(tmp_path, 1, 1, False)
    with pytest.raises(InputError, match=r"distillation went on from .*unclip"):
        decoder_steps.train(tmp_path, second, 1, 1, False, None)


def test_weights_are_lent_where_they_fit(tmp_path):
    old, new = (kandinsky.build(16, 4, 8, (32, 64), 1) for _ in range(2))
    old.save_pretrained(tmp_path)
    decoder_steps.lend(new, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(new.state_dict().values(), old.state_dict().values(), strict=True))


def test_a_shift_moves_all_alike_and_fills_with_white():
    pictures = torch.zeros(2, 3, 16, 16)
    moved = {float(training.shifted(pictures, torch.Generator().manual_seed(s)).sum()) for s in range(8)}
    assert len(moved) > 3
    assert all(0 <= m <= 2 * 3 * (16 * 16 - 12 * 12) for m in moved)


def test_the_quick_decoder_learns_what_movq_makes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(12, 4, 4, 4, generator=generator)
    pictures = (F.interpolate(latents[:, :3], scale_factor=8, mode="bilinear") / 2).half()
    torch.manual_seed(0)
    model = quick_look.QuickDecoder(4)
    quick_look.train_decoder(latents.half(), pictures, tmp_path, model=model, samples=16 * 250, minutes=5)
    with torch.no_grad():
        off = (model(latents) - pictures.float()).abs().mean()
    assert float(off) < 0.5 * float((pictures.float() - pictures.float().mean()).abs().mean())


def test_a_head_for_small_pictures_reads_them_as_the_large_ones():
    generator = torch.Generator().manual_seed(0)
    embeds = F.normalize(torch.randn(64, 8, generator=generator), dim=1)
    features = torch.stack([embeds @ torch.randn(8, 24, generator=generator)] * 2)
    head = quick_look.train_head(Head(24, 8, 32), features, embeds, steps=200)
    assert float(F.cosine_similarity(head(features[0]), embeds).mean()) > 0.95


def test_views_are_of_pictures_and_of_drawings():
    torch.manual_seed(0)
    movq = autoencoder.build((8, 8, 8, 8), 4).eval()
    embeds = F.normalize(torch.randn(6, 4), dim=1)
    near = diffusion.Neighbours(embeds, list("aabbcc"))
    prompts = diffusion.prompts(near, kandinsky.takes(2.0))
    z, seen = quick_look.views(torch.randn(6, 4, 4, 4).half(), torch.ones(6), prompts, Pulling(), movq, true=6, drawn=50)
    assert z.shape == (56, 4, 4, 4)
    assert seen.shape == (56, 3, 32, 32)
    with torch.no_grad():
        again = movq.decode(z[7:8].float(), force_not_quantize=True).sample.clamp(-1.1, 1.1)
    assert float((seen[7:8].float() - again).abs().mean()) < 0.02  # bf16
