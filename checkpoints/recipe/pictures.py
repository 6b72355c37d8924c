"""The pictures that packages hold: where each comes from, under which licence, what it is called; drawn as cut-outs."""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.data.manifest import Row
from unialign_gen.media.display import on_white

from . import colours
from .archives import read_rcc
from .concepts import article, match, unit_hash
from .cut_outs import SIDE, Drawing, render
from .files import found, new_array
from .plan import table

HELD_OUT = 0.06
LARGE_SIDE, LARGE_SHARE = 512, 0.2  # of the tier A pictures, which all come as vectors or large, for the upscaler
TIER_A = {"public domain", "cc0", "cc0-1.0", "mit", "bsd", "apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0/pd"}
TIER_B = {"cc-by-sa", "cc-by-sa-2.5", "cc-by-sa-3.0", "cc-by-sa-4.0"}
NOT_PICTURES = (None, 2, 9)  # groups of emoji: regional indicators, components, flags
NAMING = ("noto", "twemoji", "fluent-emoji-flat")  # sets that list their icons' code points
CLIP_ART = "openclipart-svg/usr/share/openclipart/svg"
CLIP_ART_SKIP = re.compile(
    r"^(shapes|special|computer/(icons|buttons|folders|diagrams)|buttons|logos|recreation/games/cards|transportation/aiga"
    r"|signs_and_symbols/(flags|led|map_symbols|hazard|disability|money)|unsorted/duplicates)[^/]*/|^geography/[^/]+$"
)
CLIP_ART_NO_TAGS = {"unsorted", "hash", "icons", "icon", "theme", "computer icons", "openclipart", "clipart", "clip_art"}
CLIP_ART_NO_TITLE = re.compile(r"(?i)(clip ?art|.* icons?|svg road signs|various|r16|etiquette|various clip)")
STAMPS_SKIP = r"^symbols/(alphabets|math|money)|_(mirror|flip)(_flip)?\.\w+$"
LESSONS = {  # GCompris' activities, and which of their files
    "explore_farm_animals": r"animals/(?!farm-animals)\w+\.(webp|svg)$",
    "explore_world_animals": r"animals/\w+\.webp$",
    "instruments": r"resource/(?!background)\w+\.svg$",
    "lang": r"words_sample/.*\.webp$",
    "categorization": r"images/(tools|others|renewable|fishes|monuments)/.*\.webp$",
    "explore_monuments": r"\.webp$",
}
LESSON_NAMES = {
    "horn": "french horn",
    "triangle": "triangle instrument",
    "flute traversiere": "flute",
    "solar": "solar panel",
    "windmill": "wind turbine",
}


@dataclass
class Item:
    """A picture before it is drawn."""

    source: str
    key: str
    licence: str
    style: str
    name: str
    drawing: Drawing
    words: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def tier(licence: str) -> str:
    """A if the licence as a whole is a permissive one, B if it is share-alike, C otherwise, GPL mostly."""
    text = re.sub(r"\s+", "-", licence.strip().lower()).replace("public-domain", "public domain")
    return "A" if text in TIER_A else "B" if text in TIER_B else "C"


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text))).strip()


def words_of(slug: str) -> str:
    return re.sub(r"[^A-Za-z ]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", slug)).strip().lower()


def first(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary in which the first value of a name stays."""
    return dict(reversed(list(pairs)))


def emoji(unpacked: Path) -> Iterator[Item]:
    """Icons by Unicode's code point, if one of three sets has it under that name, or else by Unicode's label."""

    def read(name: str) -> Any:
        return json.loads((unpacked / name).read_text())

    def letters(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    known = [e for e in read("emojibase-data/en/data.json") if e.get("group") not in NOT_PICTURES]
    by_code = {entry["hexcode"].lower().replace("-fe0f", ""): entry for entry in known}
    # some sets still use Unicode's older names
    older = [(unicodedata.name(chr(int(code, 16)), ""), entry) for code, entry in by_code.items() if "-" not in code]
    by_name = first((letters(name), entry) for name, entry in [*((e["label"], e) for e in known), *older])
    listed = [item for name in NAMING for item in read(f"iconify-json-{name}/chars.json").items()]
    by_icon = first((icon, by_code.get(code.replace("-fe0f", ""))) for code, icon in listed)
    for source, licence, style in map(dict.values, table("emoji")):
        data = read(f"iconify-json-{source}/icons.json")
        for icon, body in data["icons"].items():
            base = re.sub(r"-\d$", "", icon)
            entry = by_icon.get(icon) or by_icon.get(base) or by_name.get(letters(base))
            if entry:
                width, height = (body.get(side, data.get(side, 16)) for side in ("width", "height"))
                svg = (
                    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                    f'viewBox="{body.get("left", 0)} {body.get("top", 0)} {width} {height}">{body["body"]}</svg>'
                )
                yield Item(source, icon, licence, style, entry["label"], svg.encode(), entry.get("tags", []))
    for path, _ in found(unpacked / "lobehub-fluent-emoji-3d/assets", r"^[^/]+\.webp$"):
        if entry := by_code.get(path.stem.replace("-fe0f", "")):
            yield Item("fluent-emoji-3d", path.stem, "MIT", "3d emoji", entry["label"], path, entry.get("tags", []))


def clip_art(unpacked: Path) -> Iterator[Item]:
    """Openclipart's drawings, by the titles and keywords in them."""

    def said(text: str, tag: str) -> list[str]:
        return [plain(inner) for inner in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)]

    files = {
        key: path.read_text("utf8", "replace").partition("</metadata>")[0]
        for path, key in found(unpacked / CLIP_ART, r"\.svg$")
    }
    titles = {key: next(iter(said(text, "dc:title")), "") for key, text in files.items()}
    count = Counter(titles.values())
    for key, text in files.items():
        path = unpacked / CLIP_ART / key
        if CLIP_ART_SKIP.search(key) or path.stat().st_size > 600_000:
            continue
        tags = [tag.lower().replace("_", " ") for tag in said(text, "rdf:li")]
        tags = [tag for tag in tags if tag and tag not in CLIP_ART_NO_TAGS and "architetto" not in tag]
        stem = words_of(re.sub(r"_(archite.*|[a-z]+_[a-z]?_?\d*)$", "", path.stem))
        # a title that many files share says nothing about any of them
        title = "" if count[titles[key]] > 6 or CLIP_ART_NO_TITLE.match(titles[key]) else titles[key]
        about = (key, "CC0-1.0/PD", "clip art", title or stem, path, [*tags, words_of(path.stem)])
        yield Item("openclipart", *about, said(text, "dc:description")[:1])


def stamps(unpacked: Path) -> Iterator[Item]:
    """Tux Paint's photographs and drawings, each with its name in a text beside it."""
    for path, key in found(unpacked / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps", r"\.(png|svg)$", STAMPS_SKIP):
        if path.suffix == ".svg" or not path.with_suffix(".svg").exists():
            label, stem = path.with_suffix(".txt"), words_of(path.stem)
            text = plain(label.read_text("utf8", "replace").split("\n")[0]) if label.exists() else ""
            style = "drawing" if "cartoon" in key or path.suffix == ".svg" else "photo"
            yield Item("tuxpaint-stamps", key, "GPL-2.0-or-later", style, text or stem, path, [stem], [text])


def file_licences(readme: str) -> dict[str, str]:
    """The licence of each file that a README lists: that of the last `License: X` above it."""
    out, licence = {}, ""
    for line in map(str.strip, readme.splitlines()):
        if line.lower().startswith("license:"):
            licence = line.split(":", 1)[1].strip()
        out[line] = licence
    return out


def lessons(unpacked: Path) -> Iterator[Item]:
    """GCompris' pictures: what some of its activities teach the names of."""
    for activity, pattern in LESSONS.items():
        files = list(read_rcc(unpacked / f"gcompris-qt-data/usr/share/gcompris-qt/rcc/{activity}.rcc", f"README$|{pattern}"))
        readmes = [file_licences(raw.decode("utf8", "replace")) for name, raw in files if name.endswith("README")]
        licences = {file: licence for readme in readmes for file, licence in readme.items()}
        for name, raw in files:
            base = name.split("/")[-1]
            if base != "README":
                label = words_of(base.rsplit(".", 1)[0])
                label = "fish" if "/fishes/" in name else LESSON_NAMES.get(label, label)
                licence = licences.get(base) or "GPL-3.0-or-later"
                style = "photo" if base.endswith(".webp") and activity != "lang" else "drawing"
                yield Item("gcompris", f"{activity}/{base}", licence, style, label, raw)


def costumes(unpacked: Path) -> Iterator[Item]:
    """Scratch's figures and backgrounds, by their files' names."""
    for path, key in found(unpacked / "scratch/usr/share/scratch/Media", r"\.(png|gif|jpg)$", r"(^|/)Letters/"):
        name = re.sub(r"\b[a-z]\b|\bmit\b", "", words_of(path.stem))
        name = " ".join(["person"] * key.startswith("Costumes/People/") + name.split())
        yield Item("scratch", key, "CC-BY-SA-3.0", "photo" if path.suffix == ".jpg" else "drawing", name, path)


SOURCES = (emoji, clip_art, stamps, lessons, costumes)


NO_NAME = re.compile(r"clip ?art|@|http|icon(s|set)?$|various|submission|sibmission|openc|\d{2}")


def captions(item: Item, concepts: list[str]) -> list[str]:
    """Name, name in its style, keywords, description; a name that says nothing gives way to concepts or keywords."""
    name = re.sub(r"^(an?|the) ", "", html.unescape(item.name).strip().rstrip(".!").lower())
    junk = len(name) < 2 or NO_NAME.search(name)
    names = ([] if junk else [name]) + [c for c in concepts if c not in name]
    if junk and not concepts:
        names += [w for w in item.words if re.fullmatch(r"[a-z ]{3,24}", w)][:2]
    out = []
    for n in names[:3]:
        out += [n, f"{item.style} of {article(n)}" if item.style in ("photo", "drawing", "clip art") else f"{n} {item.style}"]
    words = [w for w in item.words if w != name and re.fullmatch(r"[a-z' -]{3,24}", w)][:8]
    if words:
        out.append(", ".join(names[:1] + words))
    out += [t for t in item.texts if 8 < len(t) < 200]
    unique: dict[str, str] = {}
    for text in out:
        unique.setdefault(text.lower(), text)
    return list(unique.values())


def draw(drawing: Drawing, large: Path | None) -> tuple[Image.Image, str, str] | None:
    """One cut-out, a digest that near-identical pictures share, and its colour; None where it fails.

    Args:
        large: where to keep it at 512 pixels too.
    """
    try:
        picture = render(drawing)
        if large is not None:
            on_white(render(drawing, LARGE_SIDE)).save(large, lossless=True, method=0)
    except Exception:  # a renderer meets thousands of hand-made files; what it cannot draw is counted by the caller
        return None
    digest = hashlib.sha1(on_white(picture).resize((16, 16)).quantize(16).convert("RGB").tobytes()).hexdigest()
    return picture, digest, colours.named(picture)


def held_out(source: str, key: str) -> bool:
    """Whether a picture of tier A or B is kept from training."""
    return unit_hash(source, key) < HELD_OUT


def build(unpacked: Path, root: Path, jobs: int) -> dict[str, Any]:
    """All pictures, as `cutouts.npy` (N or more, 128, 128, 4) and as files on white, some at 512 pixels too.

    The split follows from source and key: 6 % of tiers A and B are held out, tier C is the cross-source set.

    Returns the `rows`, their `colours`, and how many were `left` out: empty or broken, or seen before.
    """
    for folder in ("images", "pictures512"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    items = [item for source in SOURCES for item in source(unpacked)]
    ids, used = list[str](), Counter[str]()
    for item in items:
        name = re.sub(r"[^a-zA-Z0-9]+", "-", f"{item.source}-{item.key}")[:90]
        used[name.lower()] += 1  # two keys may differ in punctuation only
        ids.append(name if used[name.lower()] == 1 else f"{name}-{used[name.lower()]}")
    large = [
        root / "pictures512" / f"{name}.webp" if tier(item.licence) == "A" and unit_hash("large", name) < LARGE_SHARE else None
        for item, name in zip(items, ids, strict=True)
    ]
    rows, named, seen, left = list[Row](), list[str](), set[str](), {"broken": 0, "duplicate": 0}
    with new_array(root / "cutouts.npy", len(items), SIDE, SIDE, 4) as cut_outs, ProcessPoolExecutor(jobs) as pool:
        drawn = pool.map(draw, [item.drawing for item in items], large, chunksize=32)
        for item, name, file, made in zip(items, ids, large, drawn, strict=True):
            if made is None or made[1] in seen:
                left["broken" if made is None else "duplicate"] += 1
                if file is not None:
                    file.unlink(missing_ok=True)
                continue
            picture, digest, colour = made
            seen.add(digest)
            named.append(colour)
            cut_outs[len(rows)] = np.asarray(picture)
            path, allowed, concepts = f"images/{name}.png", tier(item.licence), match(item.source, item.name, item.words)
            on_white(picture).save(root / path, compress_level=1)
            split = "cross" if allowed == "C" else "test" if held_out(item.source, item.key) else "train"
            about = (name, "picture", item.source, item.key, item.licence, allowed, concepts, item.style)
            rows.append(Row(*about, captions(item, concepts), split, path))
    return {"rows": [vars(row) for row in rows], "colours": named, "left": left}
