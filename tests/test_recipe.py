"""The recipe's data: packages, archives, names, splits, cut-outs, colours and compositions."""

import hashlib
import json
import os
import random
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from unialign_gen.checkpoints.recipe import (
    clips,
    colours,
    concepts,
    cut_outs,
    features,
    files,
    packages,
    pictures,
    plan,
    rows,
    sounds,
    variants,
)
from unialign_gen.checkpoints.recipe.packages import read_cat, read_rcc
from unialign_gen.data.manifest import Row
from unialign_gen.errors import InputError


def row(name, kind="picture", concepts=(), captions=(), tier="A", split="train", style="emoji", source="s"):
    return Row(name, kind, source, name, "MIT", tier, list(concepts), style, list(captions), split, name)


def drawing(draw, side=128):
    """An RGBA cut-out that `draw` painted."""
    picture = Image.new("RGBA", (side, side))
    draw(ImageDraw.Draw(picture))
    return picture


def disc(fill, side=128, share=0.8):
    edge = side * (1 - share) / 2
    return drawing(lambda d: d.ellipse((edge, edge, side - edge, side - edge), fill=fill, outline="black", width=3), side)


def test_rcc_reader(tmp_path):
    names = b"".join(struct.pack(">HI", len(n), 0) + n.encode("utf-16-be") for n in ("sub", "a.txt"))
    content = [zlib.compress(b"hello")]
    data = b"".join(struct.pack(">I", len(c) + 4) + struct.pack(">I", 5) + c for c in content)
    root, folder = struct.pack(">IHII", 0, 2, 1, 1), struct.pack(">IHII", 0, 2, 1, 2)
    tree = root + folder + struct.pack(">IHHHI", 12, 1, 0, 0, 0)
    head = 20
    raw = b"qres" + struct.pack(">IIII", 1, head, head + len(tree), head + len(tree) + len(data)) + tree + data + names
    (tmp_path / "x.rcc").write_bytes(raw)
    assert list(read_rcc(tmp_path / "x.rcc")) == [("sub/a.txt", b"hello")]
    assert list(read_rcc(tmp_path / "x.rcc", "png$")) == []


def test_cat_reader(tmp_path):
    wav = b"RIFF" + struct.pack("<I", 4) + b"WAVE"
    entry = bytes([5]) + b"moo!\0" + wav
    (tmp_path / "x.cat").write_bytes(struct.pack("<II", 8, len(wav)) + entry)
    assert list(read_cat(tmp_path / "x.cat")) == [("00_moo-.wav", wav)]


def test_every_package_is_pinned():
    for name, package in packages.PACKAGES.items():
        assert package["registry"] in ("apt", "npm", "pip"), name
        assert len(package["sha256"]) == 64
        assert package["version"]
        assert package["files"]


def fake_registry(monkeypatch, command, content=b"wheel", registry="pip"):
    digest = hashlib.sha256(content).hexdigest()
    package = {"registry": registry, "package": "some-package", "version": "1.0", "sha256": digest, "files": "wheel"}
    monkeypatch.setattr(packages, "PACKAGES", {"some-package": package})
    monkeypatch.setattr(packages, "command", lambda package: ["sh", "-c", command])


def test_a_package_is_downloaded_once_and_kept_only_if_it_is_the_one_that_is_named(tmp_path, monkeypatch):
    fake_registry(monkeypatch, "printf wheel > some_package-1.0.whl")
    assert packages.archive(tmp_path, "some-package").read_bytes() == b"wheel"
    fake_registry(monkeypatch, "exit 1")  # what is there is not asked for again
    assert packages.archive(tmp_path, "some-package").name == "some_package-1.0.whl"
    fake_registry(monkeypatch, "printf other > some_package-1.0.whl")
    with pytest.raises(InputError, match="it is another file"):
        packages.archive(tmp_path / "new", "some-package")
    assert not (tmp_path / "new" / "packages" / "some-package-1.0").exists()


def test_a_package_that_is_gone_is_one_line(tmp_path, monkeypatch):
    fake_registry(monkeypatch, "echo 'E: Version 1.0 not found' >&2; exit 100")
    with pytest.raises(InputError, match=r"pip has no some-package 1.0 any more \(E: Version 1.0 not found\)") as caught:
        packages.archive(tmp_path, "some-package")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="the recipe needs Debian's tools")
def test_a_package_that_cannot_be_unpacked_leaves_no_folder(tmp_path, monkeypatch):
    fake_registry(monkeypatch, "printf broken > some-package.deb", b"broken", "apt")
    with pytest.raises(InputError, match=r"some-package.deb cannot be unpacked"):
        packages.unpack(tmp_path, "some-package")
    assert not (tmp_path / "unpacked" / "some-package").exists()


def test_a_folder_is_filled_wholly_or_not_at_all(tmp_path):
    def half(folder):
        (folder / "a").write_text("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.once(tmp_path / "x", half)
    assert not (tmp_path / "x").exists()
    files.once(tmp_path / "x", lambda folder: (folder / "b").write_text("b"))
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["b"]


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
        # only a whole text counts
        ("MIT, but not for games", "C"),
        ("CC-BY-NC-4.0", "C"),
        ("CC-BY-ND-4.0", "C"),
        ("public domain or GPL", "C"),
        ("", "C"),
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


def test_clip_art_may_match_by_keyword_and_in_italian():
    assert concepts.match("openclipart", "il gatto", []) == ["cat"]
    assert concepts.match("openclipart", "thing", ["piano"]) == ["piano"]


def test_captions_name_style_and_keywords_once_each():
    row, _ = pictures.item("noto", "cat", "MIT", "emoji", "Cat", b"", ["pet", "cat", "feline"], ["A grey cat asleep"])
    assert row.captions == ["cat", "cat emoji", "cat, pet, feline", "A grey cat asleep"]
    nameless, _ = pictures.item("openclipart", "x", "CC0", "clip art", "icon 01", b"", ["owl"])
    assert nameless.captions[:2] == ["owl", "clip art of an owl"]


def test_splits_are_stable_and_of_the_right_size():
    assert concepts.unit_hash("noto", "dog") == pytest.approx(0.4902, abs=1e-4)
    share = np.mean([pictures.held_out("x", str(i)) for i in range(20000)])
    assert share == pytest.approx(pictures.HELD_OUT, abs=0.005)


def test_takes_of_one_session_stay_together_and_sources_apart_move_no_other():
    def take(key, source="s"):
        return Row(f"{source}{key}", "sound", source, key, "MIT", "A", ["dog"], "rec", [], "train", key)

    mine = [take(f"{chr(97 + i // 4)}{i % 4}.ogg") for i in range(20)]
    sounds.hold_out(mine)
    held, kept = ({r.key[0] for r in mine if r.split == split} for split in ("test", "train"))
    assert held
    assert not held & kept
    assert sum(r.split == "test" for r in mine) <= 0.34 * len(mine)
    before = [r.split for r in mine]
    for r in mine:
        r.split = "train"
    more = [take(f"{chr(97 + i)}.ogg", sounds.APART) for i in range(12)]
    sounds.hold_out(mine + more)
    assert [r.split for r in mine] == before
    assert {r.split for r in more} == {"train", "test"}


def test_fonts_that_are_trained_on_play_more_than_the_one_that_is_not():
    for font in plan.table("fonts"):
        played, fewer = (list(sounds.jobs(font | {"tier": tier})) for tier in (font["tier"], "C"))
        assert (len(played) > 2 * len(fewer)) == (font["tier"] != "C")
        names = [(tag, concept) for concept, tag, *_ in played]
        assert len(set(names)) == len(names)
        assert all(0 <= key <= 127 and 0 < velocity <= 127 for *_, notes, _ in played for _, key, velocity, _ in notes)
        assert all(start + length <= seconds for *_, notes, seconds in played for start, _, _, length in notes)


def test_drawings_are_centred_on_nothing():
    picture = Image.new("RGBA", (300, 100))
    picture.paste((255, 0, 0, 255), (10, 10, 60, 60))
    for side, margin in ((128, 5), (512, 20)):
        ink = np.argwhere(np.asarray(cut_outs.cut_out(picture, side))[..., 3] > 127)
        assert ink.min(0).tolist() == [margin] * 2
        assert ink.max(0).tolist() == [side - 1 - margin] * 2


def test_the_white_around_an_opaque_drawing_is_cut_away_and_that_within_stays():
    page = Image.new("RGBA", (200, 200), "white")
    ImageDraw.Draw(page).ellipse((50, 50, 150, 150), fill="white", outline="blue", width=12)
    opacity = np.asarray(cut_outs.cut_out(page))[..., 3]
    assert opacity[0, 0] == 0
    assert opacity[64, 64] == 255
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 200, (90, 120, 3), np.uint8)).convert("RGBA")
    assert np.asarray(cut_outs.cut_out(photograph))[64, :, 3].min() == 255


def test_hsv_is_pythons():
    import colorsys

    rgb = np.random.default_rng(0).random((50, 3))
    found = np.stack(colours.hsv(rgb), -1)
    expected = np.array([colorsys.rgb_to_hsv(*c) for c in rgb]) * [360, 1, 1]
    assert np.allclose(found, expected, atol=1e-4)
    assert np.allclose(colours.rgb_of(*np.moveaxis(found, -1, 0)), rgb, atol=1e-6)


@pytest.mark.parametrize(
    ("fill", "name"),
    [
        ("red", "red"),
        ((250, 130, 10), "orange"),
        ("gold", "yellow"),
        ("limegreen", "green"),
        ("royalblue", "blue"),
        ((130, 50, 210), "purple"),
        ("hotpink", "pink"),
        ((120, 70, 30), "brown"),
        ("black", "black"),
        ("white", "white"),
        ((128, 128, 128), "grey"),
    ],
)
def test_a_things_colour_is_named(fill, name):
    assert colours.named(disc(fill)) == name


def test_a_thing_of_two_colours_has_none():
    both = disc("red")
    both.paste(disc("blue").crop((64, 0, 128, 128)), (64, 0))
    assert colours.named(both) == ""


@pytest.mark.parametrize("colour", [c for c in colours.NAMES if c != "grey"])
@pytest.mark.parametrize("fill", ["red", "royalblue", "gold", (150, 150, 150), "white"])
def test_a_recoloured_thing_has_the_colour_that_its_caption_says(colour, fill):
    assert colours.named(colours.recoloured(disc(fill), colour)) == colour


def test_dark_and_light_are_darker_and_lighter_and_the_cut_stays():
    thing = disc("royalblue")
    mean = {c: np.asarray(colours.recoloured(thing, c))[44:84, 44:84, :3].mean() for c in ("dark red", "red", "light red")}
    assert mean["dark red"] < mean["red"] < mean["light red"]
    same = np.asarray(colours.recoloured(thing, "dark red"))[..., 3] == np.asarray(thing)[..., 3]
    assert same.all()


def cut(number, name, split="train", tier="A", style="emoji", concept=True):
    shown = [name] if concept else []
    return variants.Cut(
        number, rows.Picture(f"{name}-{number}", split, tier, style, "s", [], shown, "", "plain", [], None), name
    )


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("dog", "dogs"),
        ("fox", "foxes"),
        ("cherry", "cherries"),
        ("toy", "toys"),
        ("sheep", "sheep"),
        ("tree leaf", "tree leaves"),
        ("mouse", "mice"),
    ],
)
def test_plurals(name, many):
    assert variants.plural(name) == many


def parts_on(page, ground):
    from scipy import ndimage

    return ndimage.label(np.abs(np.asarray(page).astype(int) - ground).max(-1) > 60)[1]


@pytest.mark.parametrize("seed", range(30))
def test_a_composition_shows_what_its_caption_says(seed, tmp_path):
    """As many things as are named, apart from each other, on the ground that is named."""
    import random

    np.save(tmp_path / "cutouts.npy", np.stack([np.asarray(disc("red")), np.asarray(disc("royalblue", share=0.6))]))
    made = variants.composition(cut(0, "dog"), cut(1, "robot"), random.Random(seed), "x")
    page = variants.draw(tmp_path / "cutouts.npy", made)
    caption = made.row.captions[0]
    assert page.size == (128, 128)
    if made.ground == variants.WHITE:
        words = caption.split()
        expected = next((n for n, word in variants.NUMBERS.items() if word == words[0]), 2 if "robot" in words else 1)
        assert parts_on(page, 255) == expected == len(made.parts)
        assert made.row.parts == [("dog-0", "robot-1")[number] for number, _, _ in made.parts]
    else:
        assert " on " in caption
        assert (np.asarray(page)[0, 0] != 255).any()
    assert ("robot" in caption) == any(number == 1 for number, _, _ in made.parts)


def test_variants_keep_split_and_the_stricter_tier():
    found = [
        cut(n, name, split, tier)
        for n, (name, split, tier) in enumerate(
            [("dog", "train", "A"), ("cat", "train", "B"), ("robot", "test", "A"), ("house", "test", "A")]
        )
    ]
    made = [v.row for v in [*variants.compositions(found[:2], 40, "train"), *variants.recolourings(found[:2])]]
    by_id = {c.row.id: c.row for c in found}
    for one in made:
        assert one.split == "train"
        assert one.tier == max(by_id[p].tier for p in one.parts)
    recoloured = [one for one in made if one.kind == "recoloured"]
    assert {one.variant_of for one in recoloured} == {"dog-0", "cat-1"}
    assert all(one.colour in one.captions[0] for one in recoloured)
    assert {v.row.split for v in variants.variants(found)} == {"train", "test"}


def test_the_same_variants_come_every_time():
    found = [cut(n, name) for n, name in enumerate(["dog", "cat", "robot"])]
    assert list(variants.compositions(found, 20, "a")) == list(variants.compositions(found, 20, "a"))


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A data folder with two plain pictures, built with their variants."""
    monkeypatch.setattr(variants.SIZES, "compositions", 5)
    np.save(tmp_path / "cutouts.npy", np.stack([np.asarray(disc("red")), np.asarray(disc((150, 150, 150)))]))
    plain = [row("a", concepts=["apple"], captions=["apple"]), row("b", captions=["Stone", "a stone, rock"])]
    variants.build(tmp_path, plain, ["red", "grey"], 1)
    return tmp_path


def test_rows_and_pictures_stand_in_one_order_plain_ones_first(few):
    found, small, large = rows.read(few), *(np.load(few / f"pictures{side}.npy") for side in (64, 128))
    assert len(found) == len(small) == len(large) == 2 + 3 + 1 + 5
    assert small.shape[1:] == (64, 64, 3)
    assert [r.kind for r in found[:2]] == ["plain", "plain"]
    assert {r.kind for r in found[2:]} == {"recoloured", "composition"}
    assert tuple(large[0, 64, 64]) == (255, 0, 0)
    assert tuple(small[0, 0, 0]) == (255, 255, 255)
    assert found[0].captions == ["apple", "a red apple", "red apple"]
    assert found[0].plain_captions == ["apple"]
    assert found[0].coloured_captions == ["a red apple", "red apple"]
    for picture, one in zip(large, found, strict=True):
        if one.kind == "recoloured" and " " not in one.colour:
            on_nothing = Image.fromarray(picture).convert("RGBA")
            on_nothing.putalpha(Image.fromarray((np.asarray(disc("red"))[..., 3] > 127).astype(np.uint8) * 255))
            assert colours.named(on_nothing) == one.colour
    assert json.loads((few / "rows.jsonl").read_text().splitlines()[0]).keys() == vars(found[0]).keys()


def test_rows_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(InputError, match="run `data` first"):
        rows.read(tmp_path)


def test_picture_features_are_kept_by_content(tmp_path, monkeypatch):
    calls = []

    class Encoder:
        def prepare(self, pictures):
            return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).float()

    monkeypatch.setattr(features, "load_encoder", lambda folder: Encoder())
    monkeypatch.setattr(features, "fast", lambda encoder, x: lambda x: (calls.append(len(x)), x.flatten(1)[:, :5].numpy())[1])
    monkeypatch.setattr(features, "CHUNK", 4)
    pixels = np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3), np.uint8)
    first = features.of_pictures(tmp_path, pixels)
    assert first.shape == (10, 5)
    assert sum(calls) == 10
    again = features.of_pictures(tmp_path, pixels)
    assert sum(calls) == 10
    assert np.array_equal(first, again)
    pixels[9] += 1  # only the file that it is in is computed again
    features.of_pictures(tmp_path, pixels)
    assert sum(calls) == 12


def test_text_features_go_on_after_a_kill(tmp_path, monkeypatch):
    class Encoder:
        def prepare(self, texts):
            return torch.tensor([[len(t), ord(t[0])] for t in texts])

    monkeypatch.setattr(features, "load_encoder", lambda folder: Encoder())
    monkeypatch.setattr(features, "fast", lambda encoder, x: lambda x: x.float().numpy())
    monkeypatch.setattr(features, "CHUNK", 2)
    assert features.TextFeatures(tmp_path)(["b", "aa", "b", "ccc"]).tolist() == [[1, 98], [2, 97], [1, 98], [3, 99]]
    (tmp_path / "features" / "text" / "00002.json").write_text('["never encoded"]')  # killed before its features were written
    known = features.TextFeatures(tmp_path)
    assert set(known.known) == {"b", "aa", "ccc"}
    assert known(["dddd", "aa"]).tolist() == [[4, 100], [2, 97]]


def test_augmented_sounds_stay_sounds():
    sound = torch.sin(torch.arange(44100 * 3) / 20)
    for seed in range(20):
        heard = features.augment(sound, torch.rand(1000), torch.Generator().manual_seed(seed))
        assert torch.isfinite(heard).all()
        assert 0.3 * len(sound) < len(heard) < 1.5 * len(sound)


def test_a_clip_has_its_pictures_and_its_sound_and_the_same_bytes_on_any_number_of_processors(tmp_path):
    import av

    from unialign_gen.media import load_sound

    wave = 0.5 * np.sin(np.arange(clips.SECONDS * clips.RATE) / 20).astype(np.float32)
    still = drawing(lambda draw: draw.ellipse((30, 30, 90, 90), fill="red"))
    processors = os.sched_getaffinity(0)
    for name, some in (("a", processors), ("b", {min(processors)})):
        os.sched_setaffinity(0, some)
        clips.write_clip(tmp_path / f"{name}.mp4", clips.moving([still.convert("RGB")], random.Random(0)), wave)
    os.sched_setaffinity(0, processors)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open(tmp_path / "a.mp4") as film:
        assert sum(1 for _ in film.decode(video=0)) == clips.FPS * clips.SECONDS
    heard = load_sound(tmp_path / "a.mp4", clips.RATE).numpy()[: len(wave)]
    assert np.corrcoef(heard, wave[: len(heard)])[0, 1] > 0.99
