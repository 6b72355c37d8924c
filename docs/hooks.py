"""What mkdocs does not do by itself: pages from outside docs/ and links to them, MathML, doctests."""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from griffe import Extension
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {  # file of the clone: page of the site
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "eval/results/starter/report.html": "starter-report.html",
    **{f"checkpoints/{p.parent.name}/README.md": f"cards/{p.parent.name}.md" for p in ROOT.glob("checkpoints/*/README.md")},
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in OUTSIDE.items():
        if page != "index.md":
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the clone as links between pages; where the site has no page, the text alone."""
    sources = {page: source for source, page in OUTSIDE.items() if page != "index.md"}
    place = page.file.src_uri
    origin = ROOT / sources.get(place, f"docs/{place}")

    def link(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        path = (origin.parent / target).resolve()
        if not path.exists():
            return found[0]  # for mkdocs to complain about
        name = path.relative_to(ROOT).as_posix()
        name = OUTSIDE.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") and path.is_file() else "")
        return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(place))}{anchor or ''})" if name else text

    return LINK.sub(link, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """TeX, which arithmatex has marked, as MathML: no script draws it."""

    def mathml(found: re.Match[str]) -> str:
        tag, tex = found.groups()
        return convert(html.unescape(tex.strip()[2:-2]), display="block" if tag == "div" else "inline")

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', mathml, content, flags=re.S)


class Examples(Extension):
    """Doctests in docstrings as code, which Markdown would take for quotations."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"(?:^Example:\n)?(^ *)>>> (?:.+\n?)+", self.fenced, text, flags=re.M)

    def fenced(self, found: re.Match[str]) -> str:
        lines = [line.removeprefix(found[1]) for line in found[0].removeprefix("Example:\n").rstrip().splitlines()]
        return "\n".join(["```pycon", *lines, "```", ""])
