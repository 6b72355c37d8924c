"""The pictures that packages hold: where each comes from, under which licence, what it is called; drawn as cut-outs."""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.data.manifest import Row

from . import colours
from .archives import read_rcc
from .concepts import article, match, unit_hash
from .cut_outs import SIDE, Drawing, on_white, render
from .files import save_array
from .plan import table

HELD_OUT = 0.06
LARGE_SIDE, LARGE_SHARE = 512, 0.2  # of the tier A pictures, which all come as vectors or large, for the upscaler
TIER_A = {"public domain", "cc0", "cc0-1.0", "mit", "bsd", "apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0/pd"}
TIER_B = {"cc-by-sa", "cc-by-sa-2.5", "cc-by-sa-3.0", "cc-by-sa-4.0"}


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


NOT_PICTURES = (None, 2, 9)  # regional indicators, components, flags


def emoji(unpacked: Path) -> Iterator[Item]:
    """Icons by Unicode's code point, if one of three sets has it under that name, or else by Unicode's label."""

    def letters(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    known = [
        e for e in json.loads((unpacked / "emojibase-data/en/data.json").read_text()) if e.get("group") not in NOT_PICTURES
    ]
    by_code = {entry["hexcode"].lower().replace("-fe0f", ""): entry for entry in known}
    by_name: dict[str, dict[str, Any]] = {}
    for entry in known:
        by_name.setdefault(letters(entry["label"]), entry)
    for code, entry in by_code.items():  # some sets still use Unicode's older names
        if "-" not in code:
            by_name.setdefault(letters(unicodedata.name(chr(int(code, 16)), "")), entry)
    codes: dict[str, str] = {}
    for name in ("noto", "twemoji", "fluent-emoji-flat"):
        for code, icon in json.loads((unpacked / f"iconify-json-{name}/chars.json").read_text()).items():
            codes.setdefault(icon, code.replace("-fe0f", ""))
    for collection in table("emoji"):
        source, licence, style = collection.values()
        data = json.loads((unpacked / f"iconify-json-{source}/icons.json").read_text())
        for icon, body in data["icons"].items():
            base = re.sub(r"-\d$", "", icon)
            entry = by_code.get(codes.get(icon, "")) or by_code.get(codes.get(base, "")) or by_name.get(letters(base))
            if entry is None:
                continue
            width, height = body.get("width", data.get("width", 16)), body.get("height", data.get("height", 16))
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{body.get("left", 0)} {body.get("top", 0)} {width} {height}">{body["body"]}</svg>'
            )
            yield Item(source, icon, licence, style, entry["label"], svg.encode(), entry.get("tags", []))
    for path in sorted((unpacked / "lobehub-fluent-emoji-3d/assets").glob("*.webp")):
        if entry := by_code.get(path.stem.replace("-fe0f", "")):
            yield Item("fluent-emoji-3d", path.stem, "MIT", "3d emoji", entry["label"], path, entry.get("tags", []))


CLIP_ART_SKIP = re.compile(
    r"^(shapes/|special/|computer/icons/|computer/buttons|computer/folders|computer/diagrams|buttons|logos"
    r"|signs_and_symbols/(flags|led|map_symbols|hazard|disability|money)|geography/?$"
    r"|recreation/games/cards|transportation/aiga|unsorted/duplicates)"
)
CLIP_ART_NO_TAGS = {"unsorted", "hash", "icons", "icon", "theme", "computer icons", "openclipart", "clipart", "clip_art"}


def clip_art(unpacked: Path) -> Iterator[Item]:
    root = unpacked / "openclipart-svg/usr/share/openclipart/svg"
    files = sorted(root.rglob("*.svg"))
    titles: Counter[str] = Counter()
    for path in files:
        with path.open("rb") as f:
            start = re.search(rb"<dc:title>(.*?)</dc:title>", f.read(6000), re.S)
        if start:
            titles[plain(start.group(1).decode("utf8", "replace"))] += 1
    for path in files:
        relative = path.relative_to(root)
        if CLIP_ART_SKIP.search(f"{relative.parent}/") or path.stat().st_size > 600_000:
            continue
        text = path.read_bytes().decode("utf8", "replace")
        metadata = re.search(r"<metadata.*?</metadata>", text, re.S)
        about = metadata.group(0) if metadata else ""
        found = re.search(r"<dc:title>(.*?)</dc:title>", about, re.S)
        description = re.search(r"<dc:description>(.*?)</dc:description>", about, re.S)
        title = plain(found.group(1)) if found else ""
        tags = [plain(k).lower().replace("_", " ") for k in re.findall(r"<rdf:li>(.*?)</rdf:li>", about, re.S)]
        tags = [k for k in tags if k and k not in CLIP_ART_NO_TAGS and "architetto" not in k]
        stem = words_of(re.sub(r"_(archite.*|[a-z]+_[a-z]?_?\d*)$", "", path.stem))
        shared = titles[title] > 6  # a title that many files share says nothing about any of them
        if shared or re.match(r"(?i)(clip ?art|.* icons?|svg road signs|various|r16|etiquette|various clip)", title):
            title = stem
        yield Item(
            "openclipart",
            str(relative),
            "CC0-1.0/PD",
            "clip art",
            title or stem,
            path,
            [*tags, words_of(path.stem)],
            [plain(description.group(1))] if description and description.group(1).strip() else [],
        )


def stamps(unpacked: Path) -> Iterator[Item]:
    root = unpacked / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix not in (".png", ".svg") or re.search(r"_(mirror|flip)(_flip)?$", path.stem):
            continue
        if str(relative).startswith(("symbols/alphabets", "symbols/math", "symbols/money")):
            continue
        if path.suffix == ".png" and path.with_suffix(".svg").exists():
            continue
        label = path.with_suffix(".txt")
        text = plain(label.read_text("utf8", "replace").split("\n")[0]) if label.exists() else ""
        stem = words_of(path.stem)
        style = "drawing" if "cartoon" in str(relative) or path.suffix == ".svg" else "photo"
        about = (str(relative), "GPL-2.0-or-later", style, text or stem)
        yield Item("tuxpaint-stamps", *about, path, [stem], [text] if text else [])


LESSONS = {  # gcompris activity: which of its files
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


def file_licences(readmes: list[str]) -> dict[str, str]:
    """`License: X` and the names under `Files:` of README texts -> {file name: licence}."""
    out = {}
    for text in readmes:
        licence, listing = "", False
        for line in map(str.strip, text.splitlines()):
            lower = line.lower()
            if lower.startswith("license:"):
                licence, listing = line.split(":", 1)[1].strip(), False
            elif lower.startswith(("copyright", "source")):
                listing = False
            elif lower.startswith("files:"):
                listing = True
            elif listing and line and licence:
                out[line] = licence
    return out


def lessons(unpacked: Path) -> Iterator[Item]:
    for activity, pattern in LESSONS.items():
        path = unpacked / "gcompris-qt-data/usr/share/gcompris-qt/rcc" / f"{activity}.rcc"
        files = read_rcc(path)
        licences = file_licences([raw.decode("utf8", "replace") for name, raw in files if name.endswith("README")])
        for name, raw in files:
            if re.search(pattern, name):
                base = name.split("/")[-1]
                label = words_of(base.rsplit(".", 1)[0])
                label = "fish" if "/fishes/" in name else LESSON_NAMES.get(label, label)
                licence = licences.get(base, "GPL-3.0-or-later")
                style = "photo" if base.endswith(".webp") and activity != "lang" else "drawing"
                yield Item("gcompris", f"{activity}/{base}", licence, style, label, raw)


def costumes(unpacked: Path) -> Iterator[Item]:
    root = unpacked / "scratch/usr/share/scratch/Media"
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix not in (".png", ".gif", ".jpg") or "Letters" in relative.parts:
            continue
        name = re.sub(r"\b[a-z]\b|\bmit\b", "", words_of(path.stem)).strip()
        if relative.parts[:2] == ("Costumes", "People"):
            name = "person " + name
        style = "photo" if path.suffix == ".jpg" else "drawing"
        yield Item("scratch", str(relative), "CC-BY-SA-3.0", style, re.sub(" +", " ", name), path)


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
    """All pictures, as `cutouts.npy` (N, 128, 128, 4) and as files on white, some at 512 pixels too.

    The split follows from source and key: 6 % of tiers A and B are held out, tier C is the cross-source set.

    Returns the `rows`, their `colours`, and how many were `left` out: empty or broken, or seen before.
    """
    for folder in ("images", "pictures512"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    items = [item for source in SOURCES for item in source(unpacked)]
    ids, used = [], Counter[str]()
    for item in items:
        name = re.sub(r"[^a-zA-Z0-9]+", "-", f"{item.source}-{item.key}")[:90]
        used[name.lower()] += 1  # two keys may differ in punctuation only
        ids.append(name if used[name.lower()] == 1 else f"{name}-{used[name.lower()]}")
    large = [
        root / "pictures512" / f"{name}.webp" if tier(item.licence) == "A" and unit_hash("large", name) < LARGE_SHARE else None
        for item, name in zip(items, ids, strict=True)
    ]
    part = root / "cutouts.part.npy"
    cut_outs = np.lib.format.open_memmap(part, "w+", np.uint8, (len(items), SIDE, SIDE, 4))
    rows: list[Row] = []
    found: list[str] = []
    seen: set[str] = set()
    left = {"broken": 0, "duplicate": 0}
    with ProcessPoolExecutor(jobs) as pool:
        drawn = pool.map(draw, [item.drawing for item in items], large, chunksize=32)
        for item, name, file, made in zip(items, ids, large, drawn, strict=True):
            if made is None or made[1] in seen:
                left["broken" if made is None else "duplicate"] += 1
                if file is not None:
                    file.unlink(missing_ok=True)
                continue
            picture, digest, colour = made
            seen.add(digest)
            found.append(colour)
            cut_outs[len(rows)] = np.asarray(picture)
            path, allowed, concepts = f"images/{name}.png", tier(item.licence), match(item.source, item.name, item.words)
            on_white(picture).save(root / path, compress_level=1)
            split = "cross" if allowed == "C" else "test" if held_out(item.source, item.key) else "train"
            about = (name, "picture", item.source, item.key, item.licence, allowed, concepts, item.style)
            rows.append(Row(*about, captions(item, concepts), split, path))
    save_array(root / "cutouts.npy", cut_outs[: len(rows)])
    part.unlink()
    return {"rows": [vars(row) for row in rows], "colours": found, "left": left}
