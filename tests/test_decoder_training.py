"""What trains the decoders: the pack, the loop that survives a kill, conditions, movq and the upscaler."""

import itertools
import json
import time

import numpy as np
import processes
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, VQModel
from scipy.ndimage import correlate

from unialign_gen.checkpoints.recipe import autoencoder, decoders, distil, loop, pack, upscaler
from unialign_gen.checkpoints.recipe.decoders import Decoder, Neighbours, sampling_weights, velocity_loss
from unialign_gen.errors import InputError
from unialign_gen.pipelines.autoencoders import LATENT_NOISE, autoencoder_kl
from unialign_gen.pipelines.upscaler import Upscaler

DIM = 32


def pictures(count, seed=0):
    """Discs of many colours on white, uint8 (count, 64, 64, 3)."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:64, :64]
    out = np.full((count, 64, 64, 3), 255, np.uint8)
    for page in out:
        at, radius = rng.uniform(20, 44, 2), rng.uniform(8, 18)
        page[(x - at[0]) ** 2 + (y - at[1]) ** 2 < radius**2] = rng.randint(0, 255, 3)
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder of 70 pictures, of which 66 may be drawn."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(70):
        kind = ("plain", "recoloured", "composition")[i % 3]
        rows.append(
            {
                "id": f"p{i}",
                "source": "s",
                "parts": [],
                "split": "test" if i == 3 else "train",
                "tier": "B" if i in (5, 7) else "C" if i == 9 else "A",
                "style": "emoji",
                "captions": [f"a thing and {i}"] if kind == "composition" else ["Dog", "a dog"],
                "concepts": ["dog"] if kind == "composition" else [],
                "colour": "red" if kind == "recoloured" else "",
                "kind": kind,
                "variant_of": "p0" if kind == "recoloured" else None,
            }
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    np.save(folder / "pictures64.npy", pictures(70))
    np.save(folder / "embeddings.npy", np.random.RandomState(0).randn(70, DIM).astype(np.float16))
    (folder / "space").mkdir()
    (folder / "space" / "head.safetensors").write_bytes(b"a head")
    torch.manual_seed(0)
    autoencoder.build((8, 8, 8), 4).save_pretrained(folder / "autoencoder" / "movq")
    assert pack.write(root=folder, file=folder / "pack", quality=80) == (folder / "pack").stat().st_size
    return folder


def test_a_pack_holds_what_may_be_drawn(root):
    kept = pack.read(root / "pack")
    mine = [i for i in range(70) if i not in (3, 5, 7, 9)]
    assert kept.pictures.shape == (66, 64, 64, 3)
    error = (kept.pictures.float() - torch.from_numpy(pictures(70)[mine]).float()).square().flatten(1).mean(1)
    assert float((10 * torch.log10(255**2 / error)).min()) > 35
    expected = torch.nn.functional.normalize(torch.from_numpy(np.load(root / "embeddings.npy")[mine]).float(), dim=1)
    torch.testing.assert_close(kept.embeddings, expected)
    assert kept.rows[0] == {"thing": "dog", "group": "dog|", "kind": "plain", "concept": False, "captions": ["Dog", "a dog"]}
    assert kept.rows[1]["group"] == "dog|red"
    assert kept.rows[2]["group"] == "a thing and 2|"
    before = VQModel.from_pretrained(root / "autoencoder" / "movq").state_dict()
    for name, value in kept.movq.state_dict().items():
        torch.testing.assert_close(value, before[name].half().float())


def test_what_cannot_be_packed_or_read_is_one_line(root, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not there: run the recipe"):
        pack.write(tmp_path, tmp_path / "pack")
    monkeypatch.setattr(pack, "MOST", 1000)
    with pytest.raises(InputError, match="a quality lower than 70"):
        pack.write(root, tmp_path / "pack")
    (tmp_path / "pack").write_bytes(b"PK nothing of the kind")
    with pytest.raises(InputError, match="is not a pack"):
        pack.read(tmp_path / "pack")


def test_neighbours_are_of_one_group():
    embeds = torch.eye(6, 256)
    near = Neighbours(embeds, [{"group": g} for g in ("dog|", "dog|", "dog|red", "dog|red", "dog|red", "cat|")])
    rows = torch.arange(6).repeat(400)
    drawn = near.draw(rows, torch.Generator().manual_seed(0), noise=0.0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(2400))
    allowed = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3), torch.ones(1, 1)).bool()
    assert bool((drawn[:, :6][~allowed[rows]] == 0).all())
    moved = (drawn.amax(1) < 0.9999).view(400, 6).float().mean(0)
    # three in ten move, if the other is not itself
    assert moved[:5].tolist() == pytest.approx([0.15, 0.15, 0.2, 0.2, 0.2], abs=0.06)
    noisy = near.draw(rows, torch.Generator().manual_seed(0))
    assert float((noisy * drawn).sum(1).min()) > 0.85
    assert float(((noisy * drawn).sum(1) > 0.9999).float().mean()) == pytest.approx(1 / 3, abs=0.05)


def test_kinds_have_their_shares_and_common_things_count_less():
    dog, cat = {"thing": "dog", "concept": False}, {"thing": "cat", "concept": False}
    rows = [dog | {"kind": "plain"}] * 4 + [cat | {"kind": "plain"}] + [dog | {"kind": "recoloured"}] * 9
    rows.append({"thing": "a dog and a cat", "concept": True, "kind": "composition"})
    weights = sampling_weights(rows)
    assert float(weights[:5].sum()) == pytest.approx(decoders.KINDS["plain"])
    assert float(weights[5:14].sum()) == pytest.approx(decoders.KINDS["recoloured"])
    assert float(weights[:4].sum() / weights[4]) == pytest.approx(2)
    known = sampling_weights([dog | {"kind": "plain"}, cat | {"kind": "plain", "concept": True}])
    assert known.tolist() == pytest.approx([0.25, 0.75])


def test_the_loss_is_nought_for_the_true_velocity_and_weighs_little_noise_less():
    x = torch.randn(512, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    reference = DDIMScheduler.from_config(decoders.SCHEDULER.config)
    seen = []

    def oracle(noisy, t):
        share = reference.alphas_cumprod[t].view(-1, 1, 1, 1)
        noise = (noisy - share.sqrt() * x) / (1 - share).sqrt()
        seen.append(t)
        return reference.get_velocity(x, noise, t) + 1  # an error of 1 everywhere

    loss = velocity_loss(oracle, x, (), torch.Generator().manual_seed(1))
    taught = velocity_loss(oracle, x, (), torch.Generator().manual_seed(1), oracle)
    assert float(taught) == 0
    share = reference.alphas_cumprod[seen[0]]
    snr = share / (1 - share)
    assert float(loss) == pytest.approx(float(((snr + 1).clamp(max=5) / (snr + 1)).mean()), rel=1e-3)
    assert int(seen[0].min()) < 3
    assert int(seen[0].max()) > 997


@pytest.mark.parametrize("decoder", [Decoder.kandinsky, Decoder.stable_unclip])
def test_a_decoder_trains_from_a_pack_and_goes_on_exactly(root, tmp_path, decoder, monkeypatch):
    monkeypatch.setattr(decoders, "SHEET", 5)
    monkeypatch.setattr(decoders, "STEPS", 2)
    monkeypatch.setattr(loop, "WARM_STEPS", 1)

    def train(out, most):
        decoders.train(root / "pack", out, decoder, minutes=5, batch=4, width=32, most=most)
        return torch.load(out / decoder.value / "state.pt", weights_only=True)

    whole = train(tmp_path / "whole", 12)
    start = train(tmp_path / "parts", 4)
    parts = train(tmp_path / "parts", 8)
    assert whole["done"] == parts["done"] == 12
    flat = [
        torch.cat([v.flatten() for k, v in state["model"].items() if k.startswith("unet.")]) for state in (start, parts, whole)
    ]
    # not to the last bit: products of matrices round by where in memory they lie, and Muon enlarges what is hardly there
    assert float((flat[1] - flat[2]).norm()) < 0.15 * float((flat[0] - flat[2]).norm())
    folder = tmp_path / "whole" / decoder.value
    assert (folder / "sheet.png").stat().st_size > 0
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert unet.config.sample_size == 16
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(log[-1]["loss"])
    if decoder is Decoder.kandinsky:  # the half that stands for a variance stays nought
        assert not bool(unet.conv_out.weight[4:].any())
        decoders.train(root / "pack", tmp_path / "whole", Decoder.stable_unclip, minutes=5, batch=4, width=32, most=0)
        second = UNet2DConditionModel.from_pretrained(tmp_path / "whole" / "stable-unclip" / "unet")
        torch.testing.assert_close(second.conv_in.weight, unet.conv_in.weight)
    else:
        assert (folder / "text_encoder" / "model.safetensors").exists()
    with pytest.raises(InputError, match="of a network of other sizes"):
        decoders.train(root / "pack", tmp_path / "whole", decoder, minutes=5, batch=4, width=64, most=4)
    (folder / "space.txt").write_text("another")
    with pytest.raises(InputError, match="another image space"):
        train(tmp_path / "whole", 4)


def add_noise(folder):
    """A training whose model adds up what was drawn for every sample."""
    model = torch.nn.Linear(64, 64)
    model.register_buffer("total", torch.zeros(2, 2))

    def loss(done, generator):
        time.sleep(0.001)
        model.total.add_(torch.randn(2, 2, generator=generator))
        return model(torch.ones(1, 64)).square().sum()

    loop.train(model, loss, lambda averaged: {}, folder, lr=1e-3, minutes=1, batch=1, every=0.005)


def test_a_kill_at_any_moment_loses_nothing(tmp_path):
    folder = tmp_path / "out"
    for _ in range(2):
        job = processes.start(add_noise, folder)
        before = (folder / "state.pt").stat().st_mtime_ns if folder.exists() else 0
        while job.alive():
            if (folder / "state.pt").exists() and (folder / "state.pt").stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(0.2)
        assert job.alive(), job.stderr
        job.kill()
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["done"] > 0
    # every sample's draw once, whatever was killed
    whole = sum(torch.randn(2, 2, generator=torch.Generator().manual_seed(done)) for done in range(state["done"]))
    torch.testing.assert_close(state["model"]["total"], whole, atol=1e-4, rtol=1e-4)


def test_muon_sees_convolutions_as_matrices_of_the_same_memory():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 40, 3), torch.nn.Linear(40, 36)).to(memory_format=torch.channels_last)
    optimiser = loop.Muon(model)
    before = [p.detach().clone() for p in model.parameters()]
    x = torch.randn(512, 32, 3, 3, generator=torch.Generator().manual_seed(0))  # many: a gradient of full rank
    optimiser.step(model[1](model[0](x).flatten(1)).square().sum(), 0.02)
    moved = [(a - b) for a, b in zip(model.parameters(), before, strict=True)]
    assert all(bool((m != 0).any()) for m in moved)
    # Muon's update of a matrix has singular values near one, times the rate and 0.2 sqrt(larger side)
    step = (moved[0] + 0.02 * 0.01 * before[0]).detach().permute(0, 2, 3, 1).reshape(40, -1)
    values = torch.linalg.svdvals(step)[:36] / (0.02 * 0.2 * 288**0.5)  # the layer behind has 36 outputs: so is the rank
    assert 0.5 < float(values.min()) < float(values.max()) < 1.4


@pytest.mark.parametrize("shape", [(48, 200), (200, 48), (64, 64)])
@pytest.mark.parametrize("smallest", [-1, -5])
def test_orthogonal_is_the_published_iteration(shape, smallest):
    """Jordan et al. 2024, on the whole matrix in fp64."""
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    x = u @ torch.diag(torch.logspace(0, smallest, min(shape))) @ v
    wanted = (x if shape[0] <= shape[1] else x.T).double()
    wanted = wanted / wanted.norm()
    for _ in range(5):
        gram = wanted @ wanted.T
        wanted = 3.4445 * wanted + (-4.775 * gram + 2.0315 * gram @ gram) @ wanted
    torch.testing.assert_close(loop.orthogonal(x), (wanted if shape[0] <= shape[1] else wanted.T).float(), atol=1e-3, rtol=0)


def test_a_decoder_may_learn_from_the_first(root, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "SHEET", 5)
    monkeypatch.setattr(decoders, "STEPS", 1)
    again = {"minutes": 5, "batch": 4, "width": 32}
    for name, value in (("WAYS", 8), ("CHUNK", 4)):
        monkeypatch.setattr(distil, name, value)
    for decoder, taught in ((Decoder.stable_unclip, True), (Decoder.distilled, False)):
        with pytest.raises(InputError, match="no trained kandinsky decoder to learn from"):
            decoders.train(root / "pack", tmp_path, decoder, **again, taught=taught, most=4)
    decoders.train(root / "pack", tmp_path, Decoder.kandinsky, **again, most=0)
    decoders.train(root / "pack", tmp_path, Decoder.distilled, **again, most=4)
    (log,) = (tmp_path / "kandinsky-distilled" / "log.jsonl").read_text().splitlines()
    assert 0 < json.loads(log)["loss"] < 10
    first, student = (
        UNet2DConditionModel.from_pretrained(tmp_path / name / "unet") for name in ("kandinsky", "kandinsky-distilled")
    )
    assert not torch.equal(first.mid_block.resnets[0].conv1.weight, student.mid_block.resnets[0].conv1.weight)
    torch.testing.assert_close(first.conv_in.weight, student.conv_in.weight, atol=0.01, rtol=0)  # it starts as its teacher
    decoders.train(root / "pack", tmp_path, Decoder.kandinsky, **again, taught=True, most=4)
    (*_, last) = (tmp_path / "kandinsky" / "log.jsonl").read_text().splitlines()
    assert json.loads(last)["loss"] < 1e-3  # it is its own teacher


def test_ways_are_the_pipelines_own_drawings():
    torch.manual_seed(0)
    teacher = decoders.KandinskyDenoiser(DIM, 4, 16, 32).eval()
    embeds, noise = 16 * torch.nn.functional.normalize(torch.randn(2, DIM), dim=1), torch.randn(2, 4, 16, 16)
    found = distil.ways(teacher, decoders.SCHEDULER, embeds, noise)
    assert torch.equal(found[:, 0], noise)
    drawing = decoders.pipeline(Decoder.kandinsky, autoencoder.build((8, 8, 8), 4), DIM, unet=teacher.unet)
    steps, seen = {"num_inference_steps": distil.STEPS * distil.JUMP, "guidance_scale": distil.GUIDANCE}, []
    drawing(
        image_embeds=embeds,
        latents=noise,
        output_type="latent",
        callback_on_step_end=lambda pipe, step, t, tensors: seen.append(tensors["latents"]),
        **steps,
    )
    for k in range(distil.STEPS):
        torch.testing.assert_close(found[:, k + 1], seen[distil.JUMP * (k + 1) - 1], atol=1e-4, rtol=1e-4)


def test_a_student_that_ends_where_its_teacher_does_has_no_loss(tmp_path, monkeypatch):
    """Each long step is one of diffusers' own sampler, which is linear in v."""
    for name, value in (("WAYS", 6), ("CHUNK", 3)):
        monkeypatch.setattr(distil, name, value)
    torch.manual_seed(0)
    teacher = decoders.KandinskyDenoiser(DIM, 4, 16, 32).eval()

    def draw(count, generator):
        return torch.randn(count, DIM, generator=generator)

    def jumps():
        return distil.Jumps(tmp_path, teacher, decoders.SCHEDULER, (4, 16, 16), draw)

    task, sampler = jumps(), DDIMScheduler.from_config(decoders.SCHEDULER.config)
    sampler.set_timesteps(distil.STEPS)

    def student(x, t, embeds):
        out = []
        for here, time_now, embed in zip(x, t, embeds, strict=True):
            way = task.latents[int((task.embeds - embed).abs().sum(1).argmin())].float()
            k = sampler.timesteps.tolist().index(int(time_now))
            assert torch.equal(way[k], here)
            at_zero, at_one = (sampler.step(v, int(time_now), here).prev_sample for v in (0 * here, 0 * here + 1))
            out.append((way[k + 1] - at_zero) / (at_one - at_zero))
        return torch.stack(out)

    generator = torch.Generator().manual_seed(0)
    assert float(task.loss(student, 16, generator)) < 1e-6
    assert float(task.loss(lambda *given: student(*given) + 1, 16, generator)) == pytest.approx(1, rel=1e-3)
    before = task.latents
    teacher.unet.requires_grad_(False).conv_out.weight.zero_()
    assert torch.equal(jumps().latents, before)  # ways that are there are not drawn again


def test_bf16_convolutions_are_close_and_leave_no_trace(monkeypatch):
    monkeypatch.setattr(loop, "BF16", True)  # whatever this processor has
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.nn.GroupNorm(2, 8), torch.nn.Conv2d(8, 4, 1))
    x = torch.randn(2, 3, 16, 16)
    exact = torch.autograd.grad(net(x).square().sum(), net.parameters())
    with loop.fast("cpu"):
        rough = torch.autograd.grad(net(x).square().sum(), net.parameters())
    assert all(g.dtype == torch.float32 for g in rough)
    ratio = [float((a - b).norm() / a.norm()) for a, b in zip(exact, rough, strict=True)]
    assert 1e-5 < max(ratio) < 0.03
    again = torch.autograd.grad(net(x).square().sum(), net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(exact, again, strict=True))


def test_unclip_labels_are_what_the_pipeline_makes(tmp_path):
    from diffusers import StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    captions = [[f"word{i}"] for i in range(64)]
    words = decoders.tokenizer(tmp_path / "tokenizer", [c for cs in captions for c in cs])
    model = decoders.UnclipDenoiser(16, 4, 16, 32, words, captions)
    again = decoders.tokenizer(tmp_path / "tokenizer", ["other words"])  # kept, not fitted anew
    assert again("word7 word60").input_ids == words("word7 word60").input_ids
    embeds = torch.nn.functional.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    dropped = torch.arange(64)[:, None] < 8
    labels, ids = model.conditions(embeds, dropped, torch.Generator().manual_seed(1), torch.arange(64))
    blank = (ids == model.ids([""])[0]).all(1)
    assert bool((labels[:8] == 0).all())
    assert bool(blank[:8].all())
    assert 0.5 < float(blank.float().mean()) < 0.95
    # the second half of every label is the level's sinusoid as diffusers' pipeline appends it
    parts = type("Parts", (), {"image_normalizer": StableUnCLIPImageNormalizer(16), "image_noising_scheduler": model.noising})
    make = StableUnCLIPImg2ImgPipeline.noise_image_embeddings
    table = torch.cat([make(parts, torch.zeros(1, 16), level, torch.zeros(1, 16))[:, 16:] for level in range(1000)])
    distance = torch.cdist(labels[8:, 16:], table.detach(), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    assert float(distance.max()) < 1e-4


def test_movq_in_another_class_draws_the_same():
    torch.manual_seed(0)
    movq = autoencoder.build((8, 8, 16), 4).eval()
    vae = autoencoder_kl(movq)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        z = movq.encode(x).latents
        encoded = vae.encode(x).latent_dist
        torch.testing.assert_close(encoded.mean, z, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoded.std, torch.full_like(z, LATENT_NOISE))
        again = movq.decode(z, force_not_quantize=True).sample
        torch.testing.assert_close(vae.decode(z).sample, again, atol=1e-5, rtol=0)
        pixels = (x.permute(0, 2, 3, 1) * 127.5 + 127.5).round().byte()
        autoencoder.normalise_latents(movq, pixels)  # moves latents, not pictures
        moved = movq.encode(x).latents
        torch.testing.assert_close(movq.decode(moved, force_not_quantize=True).sample, again, atol=1e-4, rtol=0)
        assert float((moved - z).abs().max()) > 0.1


def test_movq_learns_and_its_latents_are_normalised(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "WARM_STEPS", 1)
    monkeypatch.setattr(autoencoder, "build", lambda: VQModel.from_config(VQModel.load_config(tmp_path / "small")))
    x = torch.from_numpy(pictures(64))
    VQModel(**SMALL).save_config(tmp_path / "small")
    made = autoencoder.train(x, x[:8], tmp_path, minutes=5, most=240)
    z = autoencoder.encode(made, x).float()
    assert z.shape == (64, 4, 16, 16)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4), atol=0.02, rtol=0)
    first = (255 - x[:8].float()).square().flatten(1).mean(1)
    blank = float((10 * torch.log10(255**2 / first)).mean())
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["held_out_psnr"] > blank + 1
    kept = VQModel.from_pretrained(tmp_path / "movq")
    torch.testing.assert_close(autoencoder.reconstruct(kept, x[:8]), autoencoder.reconstruct(made, x[:8]))


SMALL = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 16, 32),
    "layers_per_block": 1,
    "latent_channels": 4,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 16,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}


def weight_file(width, depth, scale, seed=0):
    """A random network in ncnn's layout, and its layers as arrays: (weights, biases) or (slopes,)."""
    rng = np.random.RandomState(seed)
    sizes, layers, data = [3, *[width] * (depth + 1), 3 * scale**2], [], b""
    for n, (a, b) in enumerate(itertools.pairwise(sizes)):
        weight, bias = (rng.randn(b, a, 3, 3) / (9 * a) ** 0.5).astype(np.float16), rng.randn(b).astype(np.float32) * 0.1
        padding = b"\0" * (-weight.nbytes % 4)
        data += bytes.fromhex("476b3001") + weight.tobytes() + padding + bias.tobytes()
        layers.append((weight.astype(np.float64), bias))
        if n < len(sizes) - 2:
            slopes = rng.rand(b).astype(np.float32)
            data += slopes.tobytes()
            layers.append((slopes,))
    return data, layers


def evaluated(layers, x, scale):
    """The network by plain sums: x (3, h, w) in [0, 1]."""
    y = x
    for layer in layers:
        if len(layer) == 1:
            y = np.where(y > 0, y, y * layer[0][:, None, None])
        else:
            weight, bias = layer
            y = np.stack([sum(correlate(c, k, mode="constant") for c, k in zip(y, w, strict=True)) for w in weight])
            y = y + bias[:, None, None]
    out = np.repeat(np.repeat(x, scale, 1), scale, 2)
    for c in range(3):
        for i in range(scale):
            for j in range(scale):
                out[c, i::scale, j::scale] += y[c * scale**2 + i * scale + j]
    return out


def test_the_upscaler_is_the_published_network():
    data, layers = weight_file(6, 3, 4)
    model = upscaler.read_ncnn(data, 4, 6, 3)
    x = np.random.RandomState(1).rand(3, 9, 7)
    got = (model(torch.from_numpy(x)[None].float() * 2 - 1)[0].detach().double().numpy() + 1) / 2
    np.testing.assert_allclose(got, evaluated(layers, x, 4), atol=2e-6)
    doubled = upscaler.enlarged(model, 8)(torch.from_numpy(x)[None].float() * 2 - 1)
    np.testing.assert_allclose((doubled[0].detach().numpy() + 1) / 2, np.kron(got, np.ones((1, 2, 2))), atol=2e-6)


def test_the_upscaler_learns_crops_that_lie_where_they_should(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "WARM_STEPS", 1)
    large = torch.from_numpy(pictures(8).repeat(2, 1).repeat(2, 2))
    low = torch.from_numpy(pictures(8))
    pairs = upscaler.cropped_pairs(low, lambda row: large[row], 2, side=16)
    small, wide = pairs(torch.Generator().manual_seed(0), 6)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(wide, 2), small)
    torch.manual_seed(0)
    model = upscaler.train(Upscaler(2, 32, 1), pairs, tmp_path, tmp_path / "upscaler", minutes=5, most=80, lr=1e-2)
    with torch.no_grad():
        assert float((model(small) - wide).abs().mean()) < 0.2
    kept = Upscaler.from_pretrained(tmp_path / "upscaler")
    torch.testing.assert_close(kept(small), model(small))
    with pytest.raises(InputError, match="the upscaler takes pictures"):
        model(small[0])
