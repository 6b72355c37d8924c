"""Results of any number of runs as one page that holds everything in itself, and JSON; on request Markdown, LaTeX, CSV."""

from __future__ import annotations

import base64
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from unialign_gen.data import cache
from unialign_gen.errors import InputError
from unialign_gen.output import make_folder

from . import results
from .figures import clean
from .tables import FigureTable, by_metric, charts, of_classes, of_published

Found = Sequence[tuple[Path, dict[str, Any]]]  # each result with the folder that its pictures are in
PAGE, JOINED = "report.html", "report.json"
FORMATS = {"markdown": "report.md", "latex": "report.tex", "csv": "figures.csv"}
NOTE = "95 % intervals in brackets. Published numbers are quoted, not measured here, and of other data than the tables above."
SIDES = (160, 112, 80, 64, 48, 32)  # of the pictures in a grid: the first with which all of them fit
ROOM = 400_000  # bytes of all pictures of a page


def write(found: Found, out: Path, name: str = "Evaluation", formats: Sequence[str] = ()) -> list[Path]:
    """`report.html` and `report.json`, together below 2 MB for results of usual size, and the formats asked for.

    Raises:
        InputError: an unknown format.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise InputError(f"unknown format {unknown[0]!r}: choose from {', '.join(FORMATS)}")
    make_folder(out)
    texts = {PAGE: page(found, name), JOINED: json.dumps(clean(results.joined([r for _, r in found])), separators=(",", ":"))}
    rows = [r for _, result in found for r in result["rows"]]
    made = {"markdown": lambda: markdown(found, name), "latex": lambda: latex(found), "csv": lambda: results.as_csv(rows)}
    texts |= {FORMATS[f]: made[f]() for f in formats}
    for file, text in texts.items():
        cache.write_whole(out / file, (text.rstrip("\n") + "\n").encode())
    return [out / file for file in texts]


def page(found: Found, name: str) -> str:
    """The page: `report.html.j2` filled."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    parts = [
        {
            "title": title_of(result),
            "about": about_of(result),
            "sections": sections(result),
            "charts": charts(result["rows"]),
            "grids": grids,
            "plots": [(p["title"], plot(folder / p["path"])) for p in result.get("plots", [])],
        }
        for (folder, result), grids in zip(found, all_grids(found), strict=True)
    ]
    protocols = dict.fromkeys(result["protocol"] for _, result in found)
    published = [of_published(t) for p in protocols for t in results.published()["tables"] if t["protocol"] == p]
    return environment.get_template("report.html.j2").render(name=name, note=NOTE, results=parts, published=published)


def title_of(result: dict[str, Any]) -> str:
    return f"{result['protocol'].capitalize()}: {result['about'].get('dataset', '')}"


def about_of(result: dict[str, Any]) -> dict[str, str]:
    """What the numbers are to be read with, as text."""
    return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in result["about"].items()}


def sections(result: dict[str, Any]) -> list[tuple[str, list[FigureTable], bool]]:
    """Title, tables, and whether it is folded away at first."""
    found = [("Figures", by_metric(result["rows"]), False)]
    if result.get("differences"):
        found.append(("Differences between methods, paired by clip", by_metric(result["differences"], signed=True), True))
    if result.get("classes"):
        found.append(("By class", of_classes(result["classes"]), True))
    return found


def all_grids(found: Found) -> list[list[dict[str, Any]]]:
    """Each result's examples as picture grids, all of them so small that they fit the page's room."""
    for side in SIDES:
        made = [grids(folder, result, side) for folder, result in found]
        if sum(len(g["url"]) for part in made for g in part) <= ROOM:
            break
    return made


def grids(folder: Path, result: dict[str, Any], side: int) -> list[dict[str, Any]]:
    """One WebP of a result's examples, a clip a row, and one of its interpolations; the names of rows and columns beside it."""
    found = []
    examples, between = result.get("examples", []), result.get("interpolations", result.get("ways", []))
    if examples:
        columns = ["the clip's own", *(f"{p['decoder']}, {p['method']}, {p['task']}" for p in examples[0]["pictures"])]
        files = [[e["reference"], *(p["path"] for p in e["pictures"])] for e in examples]
        titles = [" / ".join(str(w) for w in (e["text"], e["label"]) if w) for e in examples]
        found.append({"title": "Pictures", "columns": columns, "rows": titles, "url": grid(folder, files, side)})
    if between:
        titles = [b["title"] for b in between]
        found.append(
            {
                "title": "Interpolations",
                "columns": [],
                "rows": titles,
                "url": grid(folder, [b["pictures"] for b in between], side),
            }
        )
    return found


def grid(folder: Path, files: Sequence[Sequence[str]], side: int) -> str:
    """Pictures (rows of file names) as one WebP; a picture that is not there leaves a grey square."""
    sheet = Image.new("RGB", (side * max(len(r) for r in files), side * len(files)), "gray")
    for y, row in enumerate(files):
        for x, name in enumerate(row):
            if (folder / name).is_file():
                with Image.open(folder / name) as opened:
                    sheet.paste(opened.convert("RGB").resize((side - 2, side - 2), reducing_gap=2.0), (x * side, y * side))
    return as_webp(sheet)


def plot(path: Path) -> str | None:
    """A plot inside the page; None where the file is gone."""
    if not path.is_file():
        return None
    with Image.open(path) as opened:
        return as_webp(opened.convert("RGB"))


def as_webp(picture: Image.Image) -> str:
    made = io.BytesIO()
    picture.save(made, "WEBP", quality=50)
    return f"data:image/webp;base64,{base64.b64encode(made.getvalue()).decode()}"


def markdown(found: Found, name: str) -> str:
    parts = [f"# {name}", NOTE]
    for _, result in found:
        parts += [f"## {title_of(result)}", "\n".join(f"- {key}: {value}" for key, value in about_of(result).items())]
        for heading, tables, _ in sections(result):
            parts.append(f"### {heading}")
            for t in tables:
                lines = [t.head, ["---"] * len(t.head), *t.rows]
                cells = ("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
                parts.append(f"**{t.title}**\n\n" + "\n".join(cells))
    return "\n\n".join(parts)


def latex(found: Found) -> str:
    """A `tabular` (booktabs) of each table of figures."""
    escapes = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}"})
    parts = []
    for _, result in found:
        for t in by_metric(result["rows"]):
            head, *body = [" & ".join(c.translate(escapes) for c in line) + " \\\\" for line in [t.head, *t.rows]]
            lines = ["\\toprule", head, "\\midrule", *body, "\\bottomrule"]
            parts.append(
                "\n".join(
                    [f"% {title_of(result)}; {t.title}", f"\\begin{{tabular}}{{{'l' * len(t.head)}}}", *lines, "\\end{tabular}"]
                )
            )
    return "\n\n".join(parts)


def brief(result: dict[str, Any], width: int = 110) -> str:
    """The first tables for a terminal."""
    lines = [textwrap.shorten(f"{k}: {v}", width) for k, v in about_of(result).items()]
    for table in by_metric(result["rows"]):
        columns = list(zip(table.head, *table.rows, strict=True))
        wide = [max(len(c) for c in column) for column in columns]
        lines += ["", table.title]
        for r in [table.head, *table.rows]:
            lines.append("  ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)).rstrip())
    return "\n".join(lines)
