"""Results of any number of runs as one page: HTML that holds everything in itself, Markdown, JSON and CSV."""

from __future__ import annotations

import base64
import html
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unialign_gen.data import cache
from unialign_gen.output import make_folder

from . import results
from .figures import clean
from .tables import Table, by_metric, of_classes, of_published

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}h3{font-size:1rem;margin:1.6rem 0 .4rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
small{opacity:.75}
th,td{padding:.25rem .6rem;vertical-align:top;text-align:left;border-bottom:1px solid #8884;white-space:nowrap}
.published{background:#8882;padding:.1rem .8rem .6rem;border-left:3px solid #888}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.9rem}dd{margin:0;overflow-wrap:anywhere}
figure{display:inline-block;margin:.2rem;font-size:.75rem;width:8.5rem;vertical-align:top}
figure img{width:100%;border:1px solid #8884}.plot{max-width:100%}summary{cursor:pointer}
"""


def title_of(result: dict[str, Any]) -> str:
    about = result["about"]
    return f"{result['protocol'].capitalize()}: {about.get('dataset', '')}"


def write(found: Sequence[tuple[Path, dict[str, Any]]], out: Path, name: str = "Evaluation") -> list[Path]:
    """`report.html`, `report.md`, `report.json` and `figures.csv` of results, each with the folder its pictures are in."""
    make_folder(out)
    joined = {"results": [result for _, result in found], "published": results.published()}
    rows = [r for _, result in found for r in result["rows"]]
    files = {
        "report.html": page(found, name),
        "report.md": markdown([result for _, result in found], name),
        "report.json": json.dumps(clean(joined), ensure_ascii=False) + "\n",
        results.TABLE: results.as_csv(rows),
    }
    for file, text in files.items():
        cache.write_whole(out / file, text.encode())
    return [out / file for file in files]


def about_of(result: dict[str, Any]) -> dict[str, str]:
    """What the numbers are to be read with, as text."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in result["about"].items()
    }


def sections(result: dict[str, Any]) -> list[tuple[str, list[Table], bool]]:
    """Title, tables, and whether it is folded away at first."""
    found = [("Figures", by_metric(result["rows"]), False)]
    if result.get("differences"):
        found.append(("Differences between methods, paired by clip", by_metric(result["differences"], signed=True), True))
    if result.get("classes"):
        found.append(("By class", of_classes(result["classes"]), True))
    return found


def published_of(protocol: str) -> list[Table]:
    return [of_published(t) for t in results.published()["tables"] if t["protocol"] == protocol]


NOTE = "95 % intervals in brackets. Published numbers are quoted, not measured here, and of other data than the tables above."


def markdown(found: Sequence[dict[str, Any]], name: str) -> str:
    parts = [f"# {name}", NOTE]
    for result in found:
        parts.append(f"## {title_of(result)}")
        parts.append("\n".join(f"- {key}: {value}" for key, value in about_of(result).items()))
        for heading, tables, _ in sections(result):
            parts.append(f"### {heading}")
            parts += [in_markdown(t) for t in tables]
    for protocol in dict.fromkeys(result["protocol"] for result in found):
        parts += [in_markdown(t) for t in published_of(protocol)]
    return "\n\n".join(parts) + "\n"


def in_markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    body = [line(table.head), line(["---"] * len(table.head)), *(line(r) for r in table.rows)]
    return f"**{table.title}**\n\n" + "\n".join(body)


def page(found: Sequence[tuple[Path, dict[str, Any]]], name: str) -> str:
    parts = [f"<h1>{escape(name)}</h1><p>{escape(NOTE)}</p>"]
    for folder, result in found:
        parts.append(f"<h2>{escape(title_of(result))}</h2>")
        terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about_of(result).items())
        parts.append(f"<dl>{terms}</dl>")
        for heading, tables, folded in sections(result):
            body = "".join(in_html(t) for t in tables)
            parts.append(f"<details{'' if folded else ' open'}><summary><b>{escape(heading)}</b></summary>{body}</details>")
        parts.append(pictures(folder, result))
    for protocol in dict.fromkeys(result["protocol"] for _, result in found):
        parts.append(f'<div class="published">{"".join(in_html(t) for t in published_of(protocol))}</div>')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(name)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def escape(text: Any) -> str:
    return html.escape(str(text))


def in_html(table: Table) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in table.head)
    body = "".join("<tr>" + "".join(f"<td>{with_interval(c)}</td>" for c in r) + "</tr>" for r in table.rows)
    return f'<h3>{escape(table.title)}</h3><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def with_interval(text: str) -> str:
    """A cell; its interval is put below the number."""
    number, bracket, interval = text.partition(" (")
    if bracket and " to " in interval:
        return f"{escape(number)}<br><small>{escape(interval.removesuffix(')'))}</small>"
    return escape(text)


def pictures(folder: Path, result: dict[str, Any]) -> str:
    """Examples side by side, ways between two prompts, and plots; those whose files are gone are left out by name."""
    parts = []
    for example in result.get("examples", []):
        shown = [figure(folder / example["reference"], "the clip's own")]
        for p in example["pictures"]:
            shown.append(figure(folder / p["path"], f"{p['decoder']}, {p['method']}, {p['task']}"))
        words = " / ".join(str(w) for w in (example["text"], example["label"]) if w)
        parts.append(f"<h3>{escape(words)}</h3>{''.join(shown)}")
    for way in result.get("ways", []):
        parts.append(f"<h3>{escape(way['title'])}</h3>" + "".join(figure(folder / p, "") for p in way["pictures"]))
    for plot in result.get("plots", []):
        parts.append(f"<h3>{escape(plot['title'])}</h3>{image(folder / plot['path'], None)}")
    return "<h3>Pictures</h3>" + "".join(parts) if parts else ""


def figure(path: Path, caption: str) -> str:
    return f"<figure>{image(path, 160)}<figcaption>{escape(caption)}</figcaption></figure>"


def image(path: Path, side: int | None) -> str:
    """A picture inside the page, no larger than `side`."""
    if not path.is_file():
        return f"<p>{escape(path.name)} is not there</p>"
    data, kind = path.read_bytes(), "png"
    if side is not None:
        with Image.open(path) as opened:
            small = opened.convert("RGB")
            small.thumbnail((side, side))
            made = io.BytesIO()
            small.save(made, "WEBP", quality=70)
        data, kind = made.getvalue(), "webp"
    return f'<img {"" if side else "class=plot "}alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


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
