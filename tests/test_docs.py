"""The documentation site: it builds strictly and offline, every link in it leads somewhere, every page is in the navigation."""

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from unialign_gen.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """The ids of a page and what it refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.loaded, self.tags = set(), [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        loads = tag in ("link", "script", "img", "source", "video", "iframe") and found.get("rel") not in ("next", "prev")
        if loads and (place := found.get("src") or found.get("href")):
            self.loaded.append(place)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it."""
    types, out = tmp_path_factory.mktemp("types"), tmp_path_factory.mktemp("site")
    package = types / "unialign_gen"
    package.mkdir()
    for path in [*(ROOT / "unialign_gen").iterdir(), *(ROOT / name for name in ("pipelines", "eval", "checkpoints"))]:
        (package / path.name).symlink_to(path)
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "TYPES": str(types), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {
        path: Page(path.read_text("utf-8"))
        for path in site.rglob("*.html")
        if path.name not in ("404.html", "starter-report.html")
    }


def test_every_link_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = pages.get(target)
            if not target.is_file() or (parts.fragment and known and unquote(parts.fragment) not in known.ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_elsewhere(pages):
    assert not [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc]


def test_equations_are_drawn_without_a_script(site, pages):
    assert "math" in pages[site / "how-it-works.html"].tags
    assert not [path for path in pages if 'class="arithmatex"' in path.read_text("utf-8")]


@pytest.mark.parametrize("module", ["objectives", "encoders", "pipelines", "film", "media", "eval"])
def test_the_reference_has_every_public_class_and_function(site, pages, module):
    found = importlib.import_module(f"unialign_gen.{module}")
    page = pages[site / "api" / f"{'evaluation' if module == 'eval' else module}.html"]
    last = {name.rpartition(".")[2] for name in page.ids}
    values = {name: getattr(found, name) for name in found.__all__}
    assert not [n for n, v in values.items() if (inspect.isclass(v) or inspect.isfunction(v)) and n not in last]


def test_every_page_is_in_the_navigation():
    def listed(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in listed(part)]

    nav = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]))
    missing = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")} - set(nav)
    assert not missing, f"give {', '.join(sorted(missing))} a line in the navigation of mkdocs.yml"


@pytest.fixture(scope="module")
def cached_load():
    """`load` that gives a pipeline it has loaded before, since each command below would load its own."""
    from unialign_gen import loading

    real, known = loading.load_pipeline, {}

    def load(*args, **options):
        key = str((args, sorted(options.items())))
        if key not in known:
            known[key] = real(*args, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_pipeline", load)
        yield


def offered():
    """The commands of the guides that draw with what comes with the package, and are not the README's."""
    readme = (ROOT / "README.md").read_text()
    for page in ("index.md", "sound-to-picture.md", "mixing.md", "films.md", "command-line.md"):
        for line in re.findall(
            r"^    unialign-gen ((?:generate|interpolate|embed|animate) .+)$", (DOCS / page).read_text(), re.M
        ):
            if line.split("  #")[0] not in readme:
                yield pytest.param(line.split("  #")[0], id=f"{page}: {line[:60]}")


@pytest.mark.parametrize("line", list(offered()))
def test_a_command_of_the_guides_runs(line, cached_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    words = shlex.split(line)
    few = {"interpolate": ["--frames", "3"], "animate": ["--seconds", "1", "--side", "64"]}.get(words[0], [])
    steps = [] if words[0] == "embed" else ["--steps", "1", *few]  # an option given again counts
    result = CliRunner().invoke(app, [*words, *steps])
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.iterdir())) > 1


@pytest.mark.parametrize("page", ["sound-to-picture.md", "mixing.md"])
def test_the_python_of_the_guides_runs(page, cached_load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"(?:^    .*\n|^\n)+", (DOCS / page).read_text(), re.M)
    (code,) = (textwrap.dedent(block) for block in blocks if "import unialign_gen" in block)
    exec(code, {})
