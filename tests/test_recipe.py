import json
import struct
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from unialign_gen.checkpoints.recipe import (
    all_tiers,
    autoencoder,
    concepts,
    diffusion,
    features,
    fonts,
    kandinsky,
    latent_features,
    manifest,
    pictures,
    rasters,
    sounds,
    steps,
    training,
    unclip,
)
from unialign_gen.checkpoints.recipe.archives import read_cat, read_rcc
from unialign_gen.checkpoints.recipe.image_space import soft_cross_entropy, thumbnails
from unialign_gen.checkpoints.recipe.splits import unit_hash
from unialign_gen.checkpoints.recipe.training import Average, load_state, save_state
from unialign_gen.data.manifest import Row
from unialign_gen.encoders.efficientnet import EfficientNetLite
from unialign_gen.errors import InputError
from unialign_gen.heads import Head, save_head
from unialign_gen.pipelines.autoencoders import LATENT_NOISE, autoencoder_kl
from unialign_gen.training.schedule import warm_then_cool


def row(name, kind="picture", concepts=(), captions=(), tier="A", split="train", style="emoji", source="s"):
    return Row(name, kind, source, name, "MIT", tier, list(concepts), style, list(captions), split, name)


def test_rcc_reader(tmp_path):
    names = b"".join(struct.pack(">HI", len(n), 0) + n.encode("utf-16-be") for n in ("sub", "a.txt"))
    content = [zlib.compress(b"hello")]
    data = b"".join(struct.pack(">I", len(c) + 4) + struct.pack(">I", 5) + c for c in content)
    root, folder = struct.pack(">IHII", 0, 2, 1, 1), struct.pack(">IHII", 0, 2, 1, 2)
    tree = root + folder + struct.pack(">IHHHI", 12, 1, 0, 0, 0)
    head = 20
    raw = b"qres" + struct.pack(">IIII", 1, head, head + len(tree), head + len(tree) + len(data)) + tree + data + names
    (tmp_path / "x.rcc").write_bytes(raw)
    assert read_rcc(tmp_path / "x.rcc") == [("sub/a.txt", b"hello")]


def test_cat_reader(tmp_path):
    wav = b"RIFF" + struct.pack("<I", 4) + b"WAVE"
    entry = bytes([5]) + b"moo!\0" + wav
    (tmp_path / "x.cat").write_bytes(struct.pack("<II", 8, len(wav)) + entry)
    assert read_cat(tmp_path / "x.cat") == [("moo!", wav)]


@pytest.mark.parametrize(
    ("licence", "tier"),
    [
        ("MIT", "A"),
        ("Apache-2.0", "A"),
        ("CC-BY-4.0", "A"),
        ("CC0-1.0/PD", "A"),
        ("Public Domain", "A"),
        ("CC-BY-SA-3.0", "B"),
        ("CC-BY-SA 4.0", "B"),
        ("GPL-2.0-or-later", "C"),
        ("GPLv3", "C"),
    ],
)
def test_licence_tiers(licence, tier):
    assert pictures.tier(licence) == tier


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("dog face", [], ["dog"]),
        ("hot dog", [], []),
        ("Two red cars", [], ["car"]),
        ("playing card", [], []),
        ("il gatto", [], []),
        ("fire engine", [], ["firetruck"]),
        ("thing", ["piano"], []),
    ],
)
def test_concepts_of_a_name(name, words, expected):
    assert concepts.match("noto", name, words) == expected


def test_captions_name_style_and_keywords_once_each():
    item = pictures.Item("noto", "cat", "MIT", "Cat", rasters.Drawing(), ["pet", "cat", "feline"], ["A grey cat asleep"])
    expected = ["cat", "cat emoji", "cat, pet, feline", "A grey cat asleep"]
    assert pictures.captions(item, ["cat"]) == expected
    nameless = pictures.Item("openclipart", "x", "CC0", "icon 01", rasters.Drawing(), ["owl"])
    assert pictures.captions(nameless, ["owl"])[:2] == ["owl", "clip art of an owl"]


def test_clip_art_may_match_by_keyword_and_in_italian():
    assert concepts.match("openclipart", "il gatto", []) == ["cat"]
    assert concepts.match("openclipart", "thing", ["piano"]) == ["piano"]


def test_splits_are_stable_and_of_the_right_size():
    assert unit_hash("noto", "dog") == unit_hash("noto", "dog")
    share = np.mean([unit_hash("x", str(i)) < pictures.HELD_OUT for i in range(20000)])
    assert share == pytest.approx(pictures.HELD_OUT, abs=0.005)


def test_takes_of_one_session_stay_together():
    rows = [row(f"d{i}", "sound", ["dog"], style="rec") for i in range(20)]
    groups = {r.id: f"session{i // 4}" for i, r in enumerate(rows)}
    sounds.hold_out(rows, groups)
    held = {groups[r.id] for r in rows if r.split == "test"}
    kept = {groups[r.id] for r in rows if r.split == "train"}
    assert held
    assert not held & kept
    assert sum(r.split == "test" for r in rows) <= 0.34 * len(rows)


def test_an_optional_source_moves_no_other_take():
    source = next(iter(sounds.OPTIONAL))
    rows = [row(f"d{i}", "sound", ["dog"], style="rec") for i in range(12)]
    more = [row(f"e{i}", "sound", ["dog"], style="rec", source=source) for i in range(12)]
    groups = {r.id: f"session{r.id[0]}{i // 2}" for i, r in enumerate(rows + more)}
    sounds.hold_out(rows, groups)
    alone = [r.split for r in rows]
    for r in rows:
        r.split = "train"
    sounds.hold_out(rows + more, groups)
    assert [r.split for r in rows] == alone
    assert {r.split for r in more} == {"train", "test"}


def test_all_tiers_is_the_same_data_with_tier_c_among_the_trained(tmp_path):
    """For comparison only: no file is copied, what was held out stays so, one font stays unmet."""
    root, out = tmp_path / "data", tmp_path / "all"
    for name in (*all_tiers.LINKED, all_tiers.COPIED):
        (root / name).mkdir(parents=True)
    rows = [row(f"p{i}", "picture", ["dog"], tier="C", split="cross") for i in range(200)]
    rows += [row(f"dog{chr(65 + i // 4)}{i % 4}", "sound", ["dog"], style="rec", tier="C", split="cross") for i in range(40)]
    rows += [row(f"f{i}", "sound", ["organ"], style="font", tier="C", split="cross", source="timgm6mb") for i in range(3)]
    rows += [row("kept", "picture", ["dog"], tier="A", split="test"), row("a", "sound", ["dog"], style="rec", tier="A")]
    manifest.write(root, rows)
    all_tiers.write(root, out)
    got = {r.id: r for r in manifest.read(out)}
    assert manifest.read(root) == rows
    assert {r.tier for r in got.values()} == {"A", "B"}
    pictures_here = [r for r in got.values() if r.id.startswith("p")]
    assert {r.split for r in pictures_here} == {"train", "test"}
    assert all((r.split == "test") == pictures.held_out(r.source, r.key) for r in pictures_here)
    takes = [r.split for r in got.values() if r.id.startswith("dog")]
    assert 0 < takes.count("test") <= 0.34 * len(takes)
    assert {got[f"f{i}"].split for i in range(3)} == {"test"}
    assert got["kept"].split == "test"
    assert got["a"].split == "train"
    assert (out / "images").resolve() == (root / "images").resolve()
    with pytest.raises(InputError, match="there already"):
        all_tiers.write(root, out)
    for ships in (steps.write_starter, steps.fit_judge):
        with pytest.raises(InputError, match="nothing of it may ship"):
            ships(out, tmp_path / "new")
    assert not (out / all_tiers.COPIED).is_symlink()  # a head trained there stays there
    (root / "features").rmdir()
    with pytest.raises(InputError, match="no features yet"):
        all_tiers.write(root, tmp_path / "new")
    with pytest.raises(InputError, match="no data set"):
        all_tiers.write(tmp_path / "nothing", tmp_path / "new")


def test_a_concept_s_point_is_the_mean_of_its_pictures_or_else_of_its_name(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = [row(f"dog{i}", concepts=["dog"], captions=["dog"]) for i in range(3)]
    rows += [row("both", concepts=["dog", "cat"], captions=["dog and cat"]), row("cat", concepts=["cat"], captions=["cat"])]
    rows += [row("unseen", concepts=["cat"], captions=["cat"], split="test"), row("secret", concepts=["cow"], tier="C")]
    manifest.write(tmp_path, rows)
    seen = {r.id: torch.randn(6, generator=generator) for r in rows}
    (tmp_path / "features").mkdir()
    save_file(seen, tmp_path / "features" / "image.safetensors")
    called = {name: torch.randn(5, generator=generator) for name in concepts.CONCEPTS}
    save_file({"features": torch.stack(list(called.values()))}, tmp_path / "features" / "text.safetensors")
    (tmp_path / "features" / "text.json").write_text(json.dumps(list(called)))
    image, text = (Head(width, 4, 3).eval().requires_grad_(False) for width in (6, 5))
    save_head(image, tmp_path / "image_space")
    table = steps.concept_points(tmp_path, text)
    point = dict(zip(table.names, table.points, strict=True))
    z = {name: F.normalize(image(x[None]), dim=1)[0] for name, x in seen.items()}
    assert torch.allclose(point["dog"], F.normalize(z["dog0"] + z["dog1"] + z["dog2"] + z["both"], dim=0), atol=1e-6)
    assert torch.allclose(point["cat"], F.normalize(z["both"] + z["cat"], dim=0), atol=1e-6)
    for name in ("cow", "organ"):
        assert torch.allclose(point[name], F.normalize(text(called[name][None]), dim=1)[0], atol=1e-6)


def test_fonts_that_are_trained_on_play_more_than_the_one_that_is_not():
    """All keys that are played are keys of a keyboard, and no two sounds of a font share a name."""
    for font in fonts.FONTS:
        played = fonts.asked(font)
        assert (len(played) > 2 * len(list(fonts.jobs(font.sets)))) == (font.tier != "C")
        names = [(tag, concept) for concept, tag, *_ in played]
        assert len(set(names)) == len(names)
        assert all(0 <= key <= 127 and 0 < velocity <= 127 for *_, notes, _ in played for _, key, velocity, _ in notes)
        assert all(start + length <= seconds for *_, notes, seconds in played for start, _, _, length in notes)


def test_drawings_are_centred_on_white():
    picture = Image.new("RGBA", (300, 100), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (10, 10, 60, 60))
    page = np.asarray(rasters.compose(picture))
    ink = np.argwhere(page[..., 1] < 128)
    assert page.shape == (128, 128, 3)
    assert ink.min(0).tolist() == [rasters.MARGIN] * 2
    assert ink.max(0).tolist() == [127 - rasters.MARGIN] * 2


def test_normalising_latents_changes_no_picture():
    torch.manual_seed(0)
    model = autoencoder.build((8, 8, 8, 8), 4).eval()
    pixels = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8)
    x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        before = model.decode(model.encode(x).latents, force_not_quantize=True).sample
        autoencoder.normalise_latents(model, pixels)
        z = model.encode(x).latents
        after = model.decode(z, force_not_quantize=True).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(4), atol=1e-3)


def test_jitter_stays_on_the_sphere_and_leaves_a_third_alone():
    z = F.normalize(torch.randn(3000, 64, generator=torch.Generator().manual_seed(1)), dim=1)
    moved = diffusion.jitter(z, torch.Generator().manual_seed(0))
    cosine = (z * moved).sum(1)
    assert torch.allclose(moved.norm(dim=1), torch.ones(3000), atol=1e-5)
    assert float((cosine > 1 - 1e-6).float().mean()) == pytest.approx(1 / 3, abs=0.04)
    assert 0.7 < float(cosine.min()) < 0.95  # a little of the largest noise, 0.6, is left to chance


def test_neighbours_move_half_of_the_embeddings_towards_others_of_the_same_thing():
    axes = torch.eye(64)[:4]
    near = diffusion.Neighbours(axes, ["cat", "cat", "dog", "cat"])
    drawn = near.draw(torch.zeros(3000, dtype=torch.long), torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.norm(dim=1), torch.ones(3000), atol=1e-5)
    toward = drawn[:, [1, 3]].amax(1) > 0.35
    assert 0.1 < float(toward.float().mean()) < 0.3  # half move, two thirds of them to another, half of those far enough
    assert float(drawn[:, 2].abs().max()) < 0.35  # the dog only by noise
    alone = near.draw(torch.full((3000,), 2), torch.Generator().manual_seed(0))
    assert float((alone[:, 2] > 1 - 1e-6).float().mean()) == pytest.approx(1 / 3, abs=0.04)


def tiny_unet():
    torch.manual_seed(0)
    return kandinsky.build(16, 4, 8, (16, 32), 1, cross_dim=32)


def train_tiny(folder, samples, unet):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(20, 4, 8, 8, generator=generator).half()
    embeds = F.normalize(torch.randn(20, 16, generator=generator), dim=1)
    grey = F.normalize(torch.randn(1, 16, generator=generator), dim=1)
    diffusion.train(
        latents,
        torch.ones(20),
        kandinsky.conditions(diffusion.Neighbours(embeds, ["a", "b"] * 10), grey, 4.0),
        folder,
        model=kandinsky.Denoiser(unet),
        samples=samples,
        minutes=5,
        batch=4,
    )
    return unet


def test_decoder_training_resumes_exactly(tmp_path, monkeypatch):
    whole = train_tiny(tmp_path / "a", 32, tiny_unet()).state_dict()
    monkeypatch.setattr(training.Clock, "left", lambda self: self.__dict__.setdefault("n", 0) < 4 and not self.tick())
    monkeypatch.setattr(training.Clock, "tick", lambda self: self.__dict__.update(n=self.n + 1), raising=False)
    train_tiny(tmp_path / "b", 32, tiny_unet())
    monkeypatch.undo()
    halves = train_tiny(tmp_path / "b", 32, tiny_unet()).state_dict()
    assert all(torch.allclose(a, halves[k], atol=1e-6) for k, a in whole.items())


def test_autoencoder_training_resumes_exactly(tmp_path, monkeypatch):
    def run(folder):
        torch.manual_seed(0)
        model = autoencoder.build((8, 8), 4)
        pixels = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        return autoencoder.train(pixels, None, folder, model=model, samples=16, minutes=5, batch=2, side=16).state_dict()

    whole = run(tmp_path / "a")
    monkeypatch.setattr(training.Clock, "left", lambda self: self.__dict__.setdefault("n", 0) < 3 and not self.tick())
    monkeypatch.setattr(training.Clock, "tick", lambda self: self.__dict__.update(n=self.n + 1), raising=False)
    run(tmp_path / "b")
    monkeypatch.undo()
    halves = run(tmp_path / "b")
    assert all(torch.allclose(a, halves[k], atol=1e-6) for k, a in whole.items())


def test_the_last_sitting_ends_cooled(tmp_path):
    seen = []

    def step(progress, generator):
        seen.append(progress)
        return torch.zeros(())

    training.loop(step, {}, tmp_path / "state.pt", samples=10**9, minutes=0.005, batch=1, last=True)
    assert seen[0] < 0.1
    assert seen[-1] > 0.9
    assert seen == sorted(seen)


def test_bf16_convolutions_are_close_and_leave_no_trace():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.nn.GroupNorm(2, 8), torch.nn.Conv2d(8, 4, 1))
    x = torch.randn(2, 3, 16, 16)
    exact = torch.autograd.grad(net(x).square().sum(), net.parameters())
    with training.bf16_convolutions(net):
        rough = torch.autograd.grad(net(x).square().sum(), net.parameters())
    assert all(g.dtype == torch.float32 for g in rough)
    ratio = [float((a - b).norm() / a.norm()) for a, b in zip(exact, rough, strict=True)]
    assert 1e-5 < max(ratio) < 0.03
    again = torch.autograd.grad(net(x).square().sum(), net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(exact, again, strict=True))


def train_tiny_in_a_group(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    model = train_tiny(folder / "shared", 16, tiny_unet())
    if rank == 0:
        torch.save(model.state_dict(), folder / "model.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_train_the_decoder_that_one_would(tmp_path):
    alone = train_tiny(tmp_path / "alone", 16, tiny_unet()).state_dict()
    torch.multiprocessing.spawn(train_tiny_in_a_group, (tmp_path,), nprocs=2)
    shared = torch.load(tmp_path / "model.pt", weights_only=True)
    start = tiny_unet().state_dict()
    moved = torch.cat([(a - start[k]).flatten() for k, a in alone.items()])
    apart = torch.cat([(a - shared[k]).flatten() for k, a in alone.items()])
    # not zero: Adam makes whole steps of gradients that are nothing but rounding
    assert (apart.norm() / moved.norm()).item() < 0.1
    assert (tmp_path / "shared" / "state.pt").exists()


def test_sharpening_moves_the_decoding_half_only(tmp_path):
    torch.manual_seed(0)
    model = autoencoder.build((8, 8, 8, 8), 4)
    pixels = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    latents = autoencoder.encode(model.eval(), pixels)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    features = autoencoder.EncoderFeatures(EfficientNetLite("lite0").net, side=64)
    after = autoencoder.sharpen(
        pixels, latents, torch.ones(6), features, tmp_path, model=model, samples=8, minutes=1
    ).state_dict()
    moved = {k.split(".")[0] for k, v in after.items() if not torch.equal(v, before[k])}
    assert moved == {"decoder", "post_quant_conv"}


def test_bf16_convolutions_compute_what_the_layers_do():
    """Plain and TensorFlow-padded ones, on sides that pad unevenly; afterwards nothing is left of it."""
    torch.manual_seed(0)
    encoder = EfficientNetLite("lite0").eval()
    x = torch.rand(2, 3, 70, 96) * 2 - 1
    with torch.no_grad():
        exact = encoder(x)
        with training.bf16_convolutions(encoder):
            rounded = encoder(x)
        torch.testing.assert_close(encoder(x), exact, rtol=0, atol=0)
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.02


def test_encoder_features_are_the_encoders_own():
    """The last layer is what the encoder pools, the stages are as many as asked for, a picture is nothing away from itself."""
    torch.manual_seed(0)
    encoder = EfficientNetLite("lite0", grid=False).eval()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    features = autoencoder.EncoderFeatures(encoder.net, side=96)
    torch.testing.assert_close(features(x)[-1].flatten(1), encoder(F.interpolate(x, size=(96, 96), mode="bicubic")))
    early = autoencoder.EncoderFeatures(encoder.net, stages=3)(x)
    assert [f.shape[-1] for f in early] == [32, 16, 8]
    assert float(autoencoder.perceptual_loss(features, x, x)) == 0
    assert float(autoencoder.perceptual_loss(features, x, -x)) > 0.1


def test_the_variance_half_of_the_unet_is_zero(tmp_path):
    model = train_tiny(tmp_path, 16, tiny_unet())
    out = model(
        torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), None, added_cond_kwargs={"image_embeds": torch.randn(2, 16)}
    ).sample
    assert out.shape[1] == 8
    assert float(out[:, 4:].abs().max()) == 0
    assert float(out[:, :4].abs().max()) > 0


def test_white_noise_starts_the_schedule():
    schedule = diffusion.scheduler()
    assert float(schedule.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)


def test_state_is_replaced_whole(tmp_path):
    path = tmp_path / "s" / "state.pt"
    assert load_state(path) is None
    save_state(path, {"x": torch.ones(2), "done": 3})
    assert load_state(path)["done"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]


def test_the_average_follows_the_weights():
    model = torch.nn.Linear(2, 1, bias=False)
    average = Average(model, 0.5)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.step()
    kept = 2 / 11
    assert torch.allclose(average.shadow["weight"], start * kept + (start + 1) * (1 - kept))


def test_learning_rate_warms_up_and_cools_down():
    factors = [warm_then_cool(p) for p in (0.0, 0.01, 0.02, 0.5, 0.75, 0.875, 1.0)]
    assert factors == pytest.approx([1e-3, 0.5, 1, 1, 1, 0.5, 0], abs=1e-6)


def test_soft_cross_entropy_of_distinct_names_is_infonce():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))
    assert float(soft_cross_entropy(logits, torch.eye(6))) == pytest.approx(float(expected), rel=1e-5)


def test_thumbnails():
    page = torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    page[:, :64] = 255
    small = thumbnails(page, 2).view(3, 2, 2)
    assert small.tolist() == [[[1, 1], [-1, -1]]] * 3


def test_augmented_sounds_stay_sounds():
    sound = torch.sin(torch.arange(44100 * 3) / 20)
    for seed in range(20):
        heard = features.augment(sound, torch.rand(1000), torch.Generator().manual_seed(seed))
        assert torch.isfinite(heard).all()
        assert 0.3 * len(sound) < len(heard) < 1.5 * len(sound)


def test_the_licence_policy():
    assert manifest.trainable(row("x"), "A")
    assert not manifest.trainable(row("x", tier="B"), "A")
    assert not manifest.trainable(row("x", tier="C", split="cross"), "AB")
    assert not manifest.trainable(row("x", split="test"), "AB")


def tiny_unclip(captions):
    torch.manual_seed(0)
    words = unclip.tokenizer([c for cs in captions for c in cs])
    return words, unclip.Denoiser(unclip.build(16, 4, 8, (32, 64), 1), unclip.text_encoder(len(words)))


def test_unclip_training_moves_both_networks_and_resumes_exactly(tmp_path, monkeypatch):
    captions = [["a red car", "car"], ["dog"], ["blue bird"], ["a dog"]]
    generator = torch.Generator().manual_seed(0)
    latents, embeds = torch.randn(4, 4, 8, 8, generator=generator), F.normalize(torch.randn(4, 16, generator=generator), dim=1)

    def run(folder):
        words, model = tiny_unclip(captions)
        given = unclip.conditions(diffusion.Neighbours(embeds, ["thing"] * len(embeds)), captions, words, 4.0)
        diffusion.train(latents, torch.ones(4), given, folder, model=model, samples=24, minutes=5, batch=4)
        return model.state_dict()

    start = tiny_unclip(captions)[1].state_dict()
    whole = run(tmp_path / "a")
    moved = {k.split(".")[0] for k, v in whole.items() if not torch.equal(v, start[k])}
    assert moved == {"unet", "text_encoder"}
    monkeypatch.setattr(training.Clock, "left", lambda self: self.__dict__.setdefault("n", 0) < 3 and not self.tick())
    monkeypatch.setattr(training.Clock, "tick", lambda self: self.__dict__.update(n=self.n + 1), raising=False)
    run(tmp_path / "b")
    monkeypatch.undo()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole.values(), run(tmp_path / "b").values(), strict=True))


def test_unclip_conditions_are_what_the_pipeline_makes():
    from diffusers import StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    embeds = F.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    captions = [[f"word{i}"] for i in range(64)]
    words, _ = tiny_unclip(captions)
    labels, ids = unclip.conditions(diffusion.Neighbours(embeds, ["thing"] * len(embeds)), captions, words, 4.0)(
        torch.arange(64), torch.Generator().manual_seed(1)
    )
    assert labels.shape == (64, 32)
    assert ids.shape == (64, unclip.LENGTH)
    zero = labels.abs().sum(1) == 0
    assert 0 < int(zero.sum()) < 20
    empty = words("", padding="max_length", max_length=unclip.LENGTH, return_tensors="pt").input_ids[0]
    blank = (ids == empty).all(1)
    assert bool(blank[zero].all())
    assert 0.5 < float(blank.float().mean()) < 0.95
    # the second half of every label is the level's sinusoid as diffusers' pipeline appends it
    stand_in = type(
        "Parts", (), {"image_normalizer": StableUnCLIPImageNormalizer(16), "image_noising_scheduler": unclip.noising()}
    )
    table = torch.stack(
        [
            StableUnCLIPImg2ImgPipeline.noise_image_embeddings(stand_in, torch.zeros(1, 16), level, torch.zeros(1, 16))[0, 16:]
            for level in range(1000)
        ]
    )
    distance = torch.cdist(labels[~zero][:, 16:], table, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    assert float(distance.detach().max()) < 1e-4


def test_autoencoder_kl_is_movq_in_another_class():
    torch.manual_seed(0)
    movq = autoencoder.build((8, 8, 16), 4).eval()
    vae = autoencoder_kl(movq)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        z = movq.encode(x).latents
        encoded = vae.encode(x).latent_dist
        assert torch.allclose(encoded.mean, z, atol=1e-5)
        assert torch.allclose(encoded.std, torch.full_like(z, LATENT_NOISE), atol=1e-6)
        assert torch.allclose(vae.decode(z).sample, movq.decode(z, force_not_quantize=True).sample, atol=1e-5)


def test_the_second_decoder_borrows_residual_blocks():
    torch.manual_seed(0)
    old = kandinsky.build(16, 4, 8, (32, 64), 1, cross_dim=32)
    new = unclip.build(16, 4, 8, (32, 64), 1)
    assert diffusion.borrow(new, old) > 0.4 * sum(p.numel() for p in new.parameters())
    name = "down_blocks.0.resnets.0.conv1.weight"
    assert torch.equal(new.state_dict()[name], old.state_dict()[name])
    assert torch.equal(new.conv_out.weight, old.conv_out.weight[:4])


def test_latent_features_learn_to_read_embeddings_and_tell_latents_apart(tmp_path):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(12, 4, 16, 16, generator=generator)
    embeds = F.normalize(latents.mean((2, 3)) @ torch.randn(4, 8, generator=generator), dim=1)
    model = latent_features.train(latents, embeds, torch.ones(12), tmp_path, samples=16 * 60, minutes=2, batch=16)
    with torch.no_grad():
        assert float((F.normalize(model(latents), dim=1) * embeds).sum(1).mean()) > 0.7
        near, far = latents + 0.05 * torch.randn(latents.shape, generator=generator), latents.roll(1, 0)
        assert float(model.distance(latents, latents)) == pytest.approx(0, abs=1e-5)
        assert float(model.distance(near, latents)) < 0.2 * float(model.distance(far, latents))


def test_muon_sees_convolutions_as_matrices_of_the_same_memory():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 40, 3), torch.nn.Linear(40, 36)).to(memory_format=torch.channels_last)
    optimiser = diffusion.Matrices(model, 0.02)
    before = [p.detach().clone() for p in model.parameters()]
    x = torch.randn(512, 32, 3, 3, generator=torch.Generator().manual_seed(0))  # many: a gradient of full rank
    optimiser.update(model[1](model[0](x).flatten(1)).square().sum(), 0.02)
    moved = [(a - b) for a, b in zip(model.parameters(), before, strict=True)]
    assert all(bool((m != 0).any()) for m in moved)
    # Muon's update of a matrix has singular values near one, times the rate and 0.2 sqrt(larger side)
    step = (moved[0] + 0.02 * 0.01 * before[0]).detach().permute(0, 2, 3, 1).reshape(40, -1)
    values = torch.linalg.svdvals(step)[:36] / (0.02 * 0.2 * 288**0.5)  # the layer behind has 36 outputs: so is the rank
    assert 0.5 < float(values.min()) < float(values.max()) < 1.4
