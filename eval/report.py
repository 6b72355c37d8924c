"""Results of any number of runs as one page that holds everything in itself, and JSON; on request Markdown, LaTeX, CSV."""

from __future__ import annotations

import base64
import io
import json
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
from .tables import FigureTable, bars, by_metric, gap_against_quality, of_classes, of_published, plane, published_rows

Found = Sequence[tuple[Path, dict[str, Any]]]  # each result with the folder that its pictures are in
PAGE, JOINED = "report.html", "report.json"
FORMATS = {"markdown": "report.md", "latex": "report.tex", "csv": "figures.csv"}
NOTE = "95 % intervals in brackets. Published numbers are quoted, not measured here."
SIDES = (160, 112, 80, 64, 48, 32)  # of the pictures in a grid: the first with which all of them fit
ROOM = 400_000  # bytes of all pictures of a page


def write(found: Found, out: Path, name: str = "Evaluation", formats: Sequence[str] = ()) -> list[Path]:
    """`report.html` and `report.json`, together below 2 MB for results of usual size, and the formats asked for.

    Raises:
        InputError: an unknown format.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
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
            "charts": bars(result["rows"]),
            "planes": [plane(c["title"], c["series"], "N", lines=True) for c in result.get("curves", []) if c["series"]]
            + [plane(m["title"], m["points"], ends=False) for m in result.get("maps", [])],
            "grids": grids,
        }
        for (_, result), grids in zip(found, all_grids(found), strict=True)
    ]
    protocols = dict.fromkeys(result["protocol"] for _, result in found)
    published = [of_published(t) for p in protocols for t in results.published()["tables"] if t["protocol"] == p]
    gaps = gap_against_quality([r for _, result in found for r in result["rows"]])
    return environment.get_template("report.html.j2").render(
        name=name, note=NOTE, results=parts, published=published, gaps=gaps
    )


def title_of(result: dict[str, Any]) -> str:
    return f"{result['protocol'].capitalize()}: {result['about'].get('dataset', '')}"


def about_of(result: dict[str, Any]) -> dict[str, str]:
    """What the numbers are to be read with, as text."""
    return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in result["about"].items()}


def sections(result: dict[str, Any]) -> list[tuple[str, list[FigureTable], bool]]:
    """Title, tables, and whether it is folded away at first."""
    rows = result["rows"]
    found = [("Figures", by_metric([*rows, *published_rows(results.published()["tables"], rows)]), False)]
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
    examples, between = result.get("examples", []), result.get("interpolations", result.get("ways", []))
    columns = ["the clip's own", *(f"{p['decoder']}, {p['method']}, {p['task']}" for e in examples[:1] for p in e["pictures"])]
    titles = [" / ".join(str(w) for w in (e["text"], e["label"]) if w) for e in examples]
    sets: list[tuple[str, list[str], list[str], list[list[str]]]] = [
        ("Pictures", columns, titles, [[e["reference"], *(p["path"] for p in e["pictures"])] for e in examples]),
        ("Interpolations", [], [b["title"] for b in between], [b["pictures"] for b in between]),
    ]
    return [
        {"title": title, "columns": columns, "rows": rows, "url": grid(folder, files, side)}
        for title, columns, rows, files in sets
        if files
    ]


def grid(folder: Path, files: Sequence[Sequence[str]], side: int) -> str:
    """Pictures (rows of file names) as one WebP; a picture that is not there leaves a grey square."""
    sheet = Image.new("RGB", (side * max(len(r) for r in files), side * len(files)), "gray")
    for y, row in enumerate(files):
        for x, name in enumerate(row):
            if (folder / name).is_file():
                with Image.open(folder / name) as opened:
                    sheet.paste(opened.convert("RGB").resize((side - 2, side - 2), reducing_gap=2.0), (x * side, y * side))
    made = io.BytesIO()
    sheet.save(made, "WEBP", quality=50)
    return f"data:image/webp;base64,{base64.b64encode(made.getvalue()).decode()}"


def markdown(found: Found, name: str) -> str:
    parts = [f"# {name}", NOTE]
    for _, result in found:
        parts += [f"## {title_of(result)}", "\n".join(f"- {key}: {value}" for key, value in about_of(result).items())]
        for heading, tables, _ in sections(result):
            parts += [f"### {heading}", *(f"**{t.title}**\n\n{lines(t)}" for t in tables)]
    return "\n\n".join(parts)


def lines(table: FigureTable) -> str:
    """A table in Markdown, columns aligned."""
    rows = [[c.replace("|", "\\|") for c in line] for line in (table.head, *table.rows)]
    wide = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * w for w in wide])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)) + " |" for r in rows)


def latex(found: Found) -> str:
    """A `tabular` (booktabs) of each table of figures."""
    escapes = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}"})
    parts = []
    for _, result in found:
        for t in sections(result)[0][1]:
            head, *body = [" & ".join(c.translate(escapes) for c in line) + " \\\\" for line in [t.head, *t.rows]]
            rows = [f"\\begin{{tabular}}{{{'l' * len(t.head)}}}", "\\toprule", head, "\\midrule", *body, "\\bottomrule"]
            parts.append("\n".join([f"% {title_of(result)}; {t.title}", *rows, "\\end{tabular}"]))
    return "\n\n".join(parts)


def brief(result: dict[str, Any]) -> str:
    """The first tables for a terminal."""
    about = "\n".join(f"{k}: {v[:100]}" for k, v in about_of(result).items())
    return "\n\n".join([about, *(f"{t.title}\n{lines(t)}" for t in by_metric(result["rows"]))])
