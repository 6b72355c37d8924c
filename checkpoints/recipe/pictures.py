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
from .rasters import SIDE, Drawing, on_white, render

HELD_OUT = 0.06
LARGE_SIDE, LARGE_SHARE = 512, 0.2  # of the tier A pictures whose source is large enough, for the upscaler
TIER_A = {"public domain", "cc0", "cc0-1.0", "mit", "bsd", "apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0/pd"}
TIER_B = {"cc-by-sa", "cc-by-sa-2.5", "cc-by-sa-3.0", "cc-by-sa-4.0"}


@dataclass
class Item:
    """A picture before it is drawn."""

    source: str
    key: str
    licence: str
    name: str
    drawing: Drawing
    words: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def tier(self) -> str:
        return tier(self.licence)


def tier(licence: str) -> str:
    """A if the licence as a whole is a permissive one, B if it is share-alike, C otherwise, GPL mostly."""
    text = re.sub(r"\s+", "-", licence.strip().lower()).replace("public-domain", "public domain")
    return "A" if text in TIER_A else "B" if text in TIER_B else "C"


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text))).strip()


def words_of(slug: str) -> str:
    return re.sub(r"[^A-Za-z ]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", slug)).strip().lower()


EMOJI = {  # set: (licence, what its style is called in captions)
    "noto": ("Apache-2.0", "emoji"),
    "noto-v1": ("Apache-2.0", "round emoji"),
    "fxemoji": ("Apache-2.0", "flat emoji"),
    "fluent-emoji": ("MIT", "glossy emoji"),
    "fluent-emoji-flat": ("MIT", "flat emoji"),
    "twemoji": ("CC-BY-4.0", "flat emoji"),
    "emojione": ("CC-BY-4.0", "emoji"),
    "streamline-emojis": ("CC-BY-4.0", "outlined emoji"),
    "openmoji": ("CC-BY-SA-4.0", "outlined emoji"),
    "emojione-v1": ("CC-BY-SA-4.0", "emoji"),
}
NOT_PICTURES = (None, 2, 9)  # regional indicators, components, flags


class EmojiNames:
    """Unicode's labels and tags by code point and by label."""

    def __init__(self, unpacked: Path):
        self.by_code: dict[str, dict] = {}
        self.by_label: dict[str, dict] = {}
        for entry in json.loads((unpacked / "emojibase-data/en/data.json").read_text()):
            if entry.get("group") in NOT_PICTURES:
                continue
            self.by_code[entry["hexcode"].lower().replace("-fe0f", "")] = entry
            self.by_label.setdefault(self.letters(entry["label"]), entry)
        for code, entry in self.by_code.items():  # some sets still use Unicode's older names
            if "-" not in code:
                self.by_label.setdefault(self.letters(unicodedata.name(chr(int(code, 16)), "")), entry)
        self.codes: dict[str, str] = {}
        for name in ("noto", "twemoji", "fluent-emoji-flat"):
            for code, icon in json.loads((unpacked / f"iconify-json-{name}/chars.json").read_text()).items():
                self.codes.setdefault(icon, code.replace("-fe0f", ""))

    @staticmethod
    def letters(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    def find(self, icon: str) -> dict | None:
        base = re.sub(r"-\d$", "", icon)
        return (
            self.by_code.get(self.codes.get(icon, ""))
            or self.by_code.get(self.codes.get(base, ""))
            or self.by_label.get(self.letters(base))
        )


def emoji(unpacked: Path) -> Iterator[Item]:
    names = EmojiNames(unpacked)
    for source, (licence, _) in EMOJI.items():
        data = json.loads((unpacked / f"iconify-json-{source}/icons.json").read_text())
        for icon, body in data["icons"].items():
            entry = names.find(icon)
            if entry is None:
                continue
            width, height = body.get("width", data.get("width", 16)), body.get("height", data.get("height", 16))
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{body.get("left", 0)} {body.get("top", 0)} {width} {height}">{body["body"]}</svg>'
            )
            yield Item(source, icon, licence, entry["label"], Drawing(svg=svg), entry.get("tags", []))
    for path in sorted((unpacked / "lobehub-fluent-emoji-3d/assets").glob("*.webp")):
        entry = names.by_code.get(path.stem.replace("-fe0f", ""))
        if entry:
            yield Item("fluent-emoji-3d", path.stem, "MIT", entry["label"], Drawing(file=str(path)), entry.get("tags", []))


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
            title or stem,
            Drawing(file=str(path)),
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
        drawing = Drawing(file=str(path))
        yield Item("tuxpaint-stamps", str(relative), "GPL-2.0-or-later", text or stem, drawing, [stem], [text] if text else [])


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
        if not path.exists():
            continue
        files = read_rcc(path)
        licences = file_licences([raw.decode("utf8", "replace") for name, raw in files if name.endswith("README")])
        for name, raw in files:
            if re.search(pattern, name):
                base = name.split("/")[-1]
                label = words_of(base.rsplit(".", 1)[0])
                label = "fish" if "/fishes/" in name else LESSON_NAMES.get(label, label)
                licence = licences.get(base, "GPL-3.0-or-later")
                yield Item("gcompris", f"{activity}/{base}", licence, label, Drawing(raw=raw))


def costumes(unpacked: Path) -> Iterator[Item]:
    root = unpacked / "scratch/usr/share/scratch/Media"
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix not in (".png", ".gif", ".jpg") or "Letters" in relative.parts:
            continue
        name = re.sub(r"\b[a-z]\b|\bmit\b", "", words_of(path.stem)).strip()
        if relative.parts[:2] == ("Costumes", "People"):
            name = "person " + name
        yield Item("scratch", str(relative), "CC-BY-SA-3.0", re.sub(" +", " ", name), Drawing(file=str(path)))


SOURCES = (emoji, clip_art, stamps, lessons, costumes)


def style(item: Item) -> str:
    if item.source == "tuxpaint-stamps":
        return "drawing" if "cartoon" in item.key or item.key.endswith(".svg") else "photo"
    if item.source == "gcompris":
        return "photo" if item.key.endswith(".webp") and not item.key.startswith("lang") else "drawing"
    if item.source == "scratch":
        return "photo" if item.key.endswith(".jpg") else "drawing"
    if item.source == "fluent-emoji-3d":
        return "3d emoji"
    return EMOJI[item.source][1] if item.source in EMOJI else "clip art"


NO_NAME = re.compile(r"clip ?art|@|http|icon(s|set)?$|various|submission|sibmission|openc|\d{2}")


def captions(item: Item, concepts: list[str]) -> list[str]:
    """Name, name in its style, keywords, description; a name that says nothing gives way to concepts or keywords."""
    name = re.sub(r"^(an?|the) ", "", html.unescape(item.name).strip().rstrip(".!").lower())
    junk = len(name) < 2 or NO_NAME.search(name)
    names = ([] if junk else [name]) + [c for c in concepts if c not in name]
    if junk and not concepts:
        names += [w for w in item.words if re.fullmatch(r"[a-z ]{3,24}", w)][:2]
    look = style(item)
    out = []
    for n in names[:3]:
        out += [n, f"{look} of {article(n)}" if look in ("photo", "drawing", "clip art") else f"{n} {look}"]
    words = [w for w in item.words if w != name and re.fullmatch(r"[a-z' -]{3,24}", w)][:8]
    if words:
        out.append(", ".join(names[:1] + words))
    out += [t for t in item.texts if 8 < len(t) < 200]
    unique: dict[str, str] = {}
    for text in out:
        unique.setdefault(text.lower(), text)
    return list(unique.values())


@dataclass
class Job:
    """A picture to be drawn: `number` is its place in the files of cut-outs at `cut_outs`."""

    number: int
    drawing: Drawing
    cut_outs: Path
    large: Path | None


def draw(job: Job) -> tuple[int, str | None, str]:
    """Draws one cut-out; returns a digest that near-identical pictures share, or None where it fails, and its colour."""
    try:
        picture = render(job.drawing)
        if job.large is not None and not job.large.exists():
            on_white(render(job.drawing, LARGE_SIDE)).save(job.large, lossless=True, method=0)
    except Exception:  # a renderer meets thousands of hand-made files; what it cannot draw is counted by the caller
        return job.number, None, ""
    np.load(job.cut_outs, mmap_mode="r+")[job.number] = np.asarray(picture)
    digest = hashlib.sha1(on_white(picture).resize((16, 16)).quantize(16).convert("RGB").tobytes()).hexdigest()
    return job.number, digest, colours.named(picture)


def held_out(source: str, key: str) -> bool:
    """Whether a picture of tier A or B is kept from training."""
    return unit_hash(source, key) < HELD_OUT


def large_file(root: Path, item: Item, name: str) -> Path | None:
    """Where a picture is kept at 512 pixels too: a share of tier A whose sources are vectors, photographs or renders."""
    sharp = item.drawing.is_svg or item.source in ("gcompris", "fluent-emoji-3d")
    chosen = item.tier == "A" and sharp and unit_hash("large", name) < LARGE_SHARE
    return root / "pictures512" / f"{name}.webp" if chosen else None


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
    part = root / "cutouts.part.npy"
    cut_outs = np.lib.format.open_memmap(part, "w+", np.uint8, (len(items), SIDE, SIDE, 4))
    work = [Job(n, i.drawing, part, large_file(root, i, name)) for n, (i, name) in enumerate(zip(items, ids, strict=True))]
    rows: list[Row] = []
    kept: list[int] = []
    found: list[str] = []
    seen: set[str] = set()
    left = {"broken": 0, "duplicate": 0}
    with ProcessPoolExecutor(jobs) as pool:
        for n, digest, colour in pool.map(draw, work, chunksize=32):
            item, name = items[n], ids[n]
            if digest is None or digest in seen:
                left["broken" if digest is None else "duplicate"] += 1
                (root / "pictures512" / f"{name}.webp").unlink(missing_ok=True)
                continue
            seen.add(digest)
            kept.append(n)
            found.append(colour)
            concepts = match(item.source, item.name, item.words)
            split = "cross" if item.tier == "C" else "test" if held_out(item.source, item.key) else "train"
            said, path = captions(item, concepts), f"images/{name}.png"
            on_white(Image.fromarray(cut_outs[n], "RGBA")).save(root / path, compress_level=1)
            rows.append(
                Row(name, "picture", item.source, item.key, item.licence, item.tier, concepts, style(item), said, split, path)
            )
    whole = np.lib.format.open_memmap(root / "cutouts.whole.npy", "w+", np.uint8, (len(rows), SIDE, SIDE, 4))
    for n, number in enumerate(kept):
        whole[n] = cut_outs[number]
    whole.flush()
    (root / "cutouts.whole.npy").replace(root / "cutouts.npy")
    part.unlink()
    return {"rows": [vars(row) for row in rows], "colours": found, "left": left}
