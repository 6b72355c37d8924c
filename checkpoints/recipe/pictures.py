"""The pictures that packages hold: where each comes from, under which licence, what it is called; drawn as cut-outs."""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.data.manifest import Row
from unialign_gen.media.display import on_white

from . import colours
from .concepts import article, match, unit_hash
from .cut_outs import SIDE, Drawing, render
from .files import found, new_array
from .packages import read_rcc
from .plan import table

HELD_OUT = 0.06
LARGE_SIDE, LARGE_SHARE = 512, 0.2  # of the tier A pictures, which all come as vectors or large, for the upscaler
TIER_A = {"public domain", "cc0", "cc0-1.0", "mit", "bsd", "apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0/pd"}
TIER_B = {"cc-by-sa", "cc-by-sa-2.5", "cc-by-sa-3.0", "cc-by-sa-4.0"}
NOT_PICTURES = (None, 2, 9)  # groups of emoji: regional indicators, components, flags
NAMING = ("noto", "fluent-emoji-flat")  # sets that list their icons' code points
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
CLIP_ART = "openclipart-svg/usr/share/openclipart/svg"
CLIP_ART_SKIP = re.compile(
    r"^(shapes|special|computer/(icons|buttons|folders|diagrams)|buttons|logos|recreation/games/cards|transportation/aiga"
    r"|signs_and_symbols/(flags|led|map_symbols|hazard|disability|money)|unsorted/duplicates)[^/]*/|^geography/[^/]+$"
)
CLIP_ART_NO_TAGS = {"unsorted", "hash", "icons", "icon", "theme", "openclipart", "clipart"}
CLIP_ART_NO_TITLE = re.compile(r"(?i)(clip ?art|.* icons?|etiquette)")
STAMPS_SKIP = r"^symbols/(alphabets|math|money)|_mirror\.\w+$"
NO_NAME = re.compile(r"clip ?art|@|icon(s|set)?$|various|\d{2}")
Texts = Sequence[str]
Item = tuple[Row, Drawing]  # a picture, and what it is drawn from


def tier(licence: str) -> str:
    """A if the licence as a whole is a permissive one, B if it is share-alike, C otherwise, GPL mostly."""
    text = re.sub(r"\s+", "-", licence.strip().lower()).replace("public-domain", "public domain")
    return "A" if text in TIER_A else "B" if text in TIER_B else "C"


def held_out(source: str, key: str) -> bool:
    """Whether a picture of tier A or B is kept from training."""
    return unit_hash(source, key) < HELD_OUT


def item(
    source: str, key: str, licence: str, style: str, name: str, drawing: Drawing, words: Texts = (), texts: Texts = ()
) -> Item:
    """A picture by what its maker says of it: its name, keywords and texts.

    The split follows from source and key: 6 % of tiers A and B are held out, tier C is the cross-source set. Captions are name,
    name in its style, keywords, description; a name that says nothing gives way to concepts or keywords.
    """
    allowed, concepts = tier(licence), match(source, name, words)
    split = "cross" if allowed == "C" else "test" if held_out(source, key) else "train"
    short = re.sub(r"[^a-zA-Z0-9]+", "-", f"{source}-{key}")[:90]
    name = re.sub(r"^(an?|the) ", "", html.unescape(name).rstrip(".!").lower())
    junk = len(name) < 2 or NO_NAME.search(name)
    names = ([] if junk else [name]) + [c for c in concepts if c not in name]
    if junk and not concepts:
        names += [w for w in words if re.fullmatch(r"[a-z ]{3,24}", w)][:2]
    out = []
    for n in names[:3]:
        out += [n, f"{style} of {article(n)}" if style in ("photo", "drawing", "clip art") else f"{n} {style}"]
    keywords = [w for w in words if w != name and re.fullmatch(r"[a-z' -]{3,24}", w)][:8]
    if keywords:
        out.append(", ".join(names[:1] + keywords))
    out += [t for t in texts if 8 < len(t) < 200]
    lower = [text.lower() for text in out]
    captions = [text for n, text in enumerate(out) if lower.index(lower[n]) == n]
    return Row(short, "picture", source, key, licence, allowed, concepts, style, captions, split, ""), drawing


def words_of(slug: str) -> str:
    return re.sub(r"[^A-Za-z ]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", slug)).strip().lower()


def emoji(unpacked: Path) -> Iterator[Item]:
    """Icons by Unicode's code point, if one of two sets has it under that name, or else by Unicode's label."""

    def read(name: str) -> Any:
        return json.loads((unpacked / name).read_text())

    def letters(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    known = [e for e in read("emojibase-data/package/en/data.json") if e.get("group") not in NOT_PICTURES]
    by_code = {entry["hexcode"].lower().replace("-fe0f", ""): entry for entry in known}
    # some sets still use Unicode's older names
    older = [(unicodedata.name(chr(int(code, 16)), ""), entry) for code, entry in by_code.items() if "-" not in code]
    # of several entries of one name the first counts
    by_name = {letters(name): entry for name, entry in reversed([*((e["label"], e) for e in known), *older])}
    listed = [pair for name in NAMING for pair in read(f"iconify-json-{name}/package/chars.json").items()]
    by_icon = {icon: by_code.get(code) for code, icon in listed}
    for source, licence, style in map(dict.values, table("emoji")):
        data = read(f"iconify-json-{source}/package/icons.json")
        for icon, body in data["icons"].items():
            entry = by_icon.get(icon) or by_name.get(letters(re.sub(r"-\d$", "", icon)))
            if entry:
                width, height = (body.get(side, data.get(side, 16)) for side in ("width", "height"))
                box = f"{body.get('left', 0)} {body.get('top', 0)} {width} {height}"
                svg = f'<svg {NAMESPACES} viewBox="{box}">{body["body"]}</svg>'
                yield item(source, icon, licence, style, entry["label"], svg.encode(), entry.get("tags", []))
    for path, _ in found(unpacked / "lobehub-fluent-emoji-3d/package/assets", r"^[^/]+\.webp$"):
        if entry := by_code.get(path.stem.replace("-fe0f", "")):
            yield item("fluent-emoji-3d", path.stem, "MIT", "3d emoji", entry["label"], path, entry.get("tags", []))


def clip_art(unpacked: Path) -> Iterator[Item]:
    """Openclipart's drawings, by the titles and keywords in them."""

    def said(text: str, tag: str) -> list[str]:
        return [" ".join(html.unescape(inner).split()) for inner in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)]

    files = list(found(unpacked / CLIP_ART, r"\.svg$"))
    texts = [path.read_text("utf8", "replace").partition("</metadata>")[0] for path, _ in files]
    titles = ["".join(said(text, "dc:title")[:1]) for text in texts]
    count = Counter(titles)
    for (path, key), text, title in zip(files, texts, titles, strict=True):
        if CLIP_ART_SKIP.search(key) or path.stat().st_size > 600_000:
            continue
        tags = [tag.lower().replace("_", " ") for tag in said(text, "rdf:li")]
        tags = [tag for tag in tags if tag not in CLIP_ART_NO_TAGS]
        stem = words_of(re.sub(r"_(archite.*|[a-z]+_[a-z]?_?\d*)$", "", path.stem))
        # a title that many files share says nothing about any of them
        name = stem if not title or count[title] > 6 or CLIP_ART_NO_TITLE.match(title) else title
        about = (key, "CC0-1.0/PD", "clip art", name, path, [*tags, words_of(path.stem)])
        yield item("openclipart", *about, said(text, "dc:description")[:1])


def stamps(unpacked: Path) -> Iterator[Item]:
    """Tux Paint's photographs and drawings, each with its name in a text beside it."""
    for path, key in found(unpacked / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps", r"\.(png|svg)$", STAMPS_SKIP):
        if path.suffix == ".svg" or not path.with_suffix(".svg").exists():
            text = " ".join(path.with_suffix(".txt").read_text("utf8", "replace").split("\n")[0].split())
            style = "drawing" if "cartoon" in key or path.suffix == ".svg" else "photo"
            yield item("tuxpaint-stamps", key, "GPL-2.0-or-later", style, text, path, [words_of(path.stem)], [text])


def lessons(unpacked: Path) -> Iterator[Item]:
    """GCompris' pictures that a rule of `tables/lessons.tsv` names or takes as they are named: the first rule that matches."""
    for activity in dict.fromkeys(rule["activity"] for rule in table("lessons")):
        rules = [rule for rule in table("lessons") if rule["activity"] == activity]
        files = list(read_rcc(unpacked / f"gcompris-qt-data/usr/share/gcompris-qt/rcc/{activity}.rcc"))
        licences = {}  # of a file that a README lists: that of the last `License: X` above it
        for readme in (raw.decode("utf8", "replace") for name, raw in files if name.endswith("README")):
            licence = ""
            for line in map(str.strip, readme.splitlines()):
                if line.lower().startswith("license:"):
                    licence = line[8:].strip()
                licences[line] = licence
        for name, raw in files:
            rule = next((rule for rule in rules if re.search(rule["files"], name)), None)
            if rule:
                base = name.split("/")[-1]
                label = rule["name"] or words_of(base.rsplit(".", 1)[0])
                style = "photo" if base.endswith(".webp") and activity != "lang" else "drawing"
                yield item("gcompris", f"{activity}/{base}", licences.get(base) or "GPL-3.0-or-later", style, label, raw)


def costumes(unpacked: Path) -> Iterator[Item]:
    """Scratch's figures and backgrounds, by their files' names."""
    for path, key in found(unpacked / "scratch/usr/share/scratch/Media", r"\.(png|gif|jpg)$", r"(^|/)Letters/"):
        name = re.sub(r"\b[a-z]\b|\bmit\b", "", words_of(path.stem))
        name = " ".join(["person"] * key.startswith("Costumes/People/") + name.split())
        yield item("scratch", key, "CC-BY-SA-3.0", "photo" if path.suffix == ".jpg" else "drawing", name, path)


SOURCES = (emoji, clip_art, stamps, lessons, costumes)


def draw(drawing: Drawing, large: Path | None) -> tuple[Image.Image, str, str] | None:
    """One cut-out, kept at 512 pixels too in a file `large`, a digest that near-identical ones share, its colour; or None."""
    try:
        picture = render(drawing)
        if large is not None:
            on_white(render(drawing, LARGE_SIDE)).save(large, lossless=True, method=0)
    except Exception:  # a renderer meets thousands of hand-made files; what it cannot draw is counted by the caller
        return None
    digest = hashlib.sha1(on_white(picture).resize((16, 16)).quantize(16).convert("RGB").tobytes()).hexdigest()
    return picture, digest, colours.named(picture)


def build(unpacked: Path, root: Path, jobs: int) -> dict[str, Any]:
    """All pictures, as `cutouts.npy` (N or more, 128, 128, 4) and as files on white, some at 512 pixels too.

    Returns the `rows`, their `colours`, and how many were `left` out: empty or broken, or seen before.
    """
    for folder in ("images", "pictures512"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows, drawings = zip(*(item for source in SOURCES for item in source(unpacked)), strict=True)
    used = Counter[str]()
    for row in rows:
        used[row.id.lower()] += 1  # two keys may differ in punctuation only
        row.id += f"-{used[row.id.lower()]}" if used[row.id.lower()] > 1 else ""
        row.path = f"images/{row.id}.png"
    wanted = [row.tier == "A" and unit_hash("large", row.id) < LARGE_SHARE for row in rows]
    large = [root / "pictures512" / f"{row.id}.webp" if yes else None for row, yes in zip(rows, wanted, strict=True)]
    kept, named, seen, left = list[Row](), list[str](), set[str](), {"broken": 0, "duplicate": 0}
    with new_array(root / "cutouts.npy", len(rows), SIDE, SIDE, 4) as cut_outs, ProcessPoolExecutor(jobs) as pool:
        for row, file, made in zip(rows, large, pool.map(draw, drawings, large, chunksize=32), strict=True):
            if made is None or made[1] in seen:
                left["broken" if made is None else "duplicate"] += 1
                if file is not None:
                    file.unlink(missing_ok=True)
                continue
            picture, digest, colour = made
            cut_outs[len(kept)] = np.asarray(picture)
            on_white(picture).save(root / row.path, compress_level=1)
            seen.add(digest)
            named.append(colour)
            kept.append(row)
    return {"rows": [vars(row) for row in kept], "colours": named, "left": left}
