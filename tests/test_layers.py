"""Imports go one way: each layer of the package imports its own and those below it, also inside functions."""

import ast
from pathlib import Path

import pytest

from unialign_gen.deprecated import MODULES

ROOT = Path(__file__).parent.parent
FOLDERS = {"pipelines": "pipelines", "eval": "eval", "checkpoints": "checkpoints"}  # top-level folder: name in the package
LAYERS = [  # from the bottom; what is not named here is the core
    {"core"},
    {"pipelines"},
    {"loading", "film", "serving"},
    {"data", "configs"},
    {"training"},
    {"eval"},
    {"bench"},
    {"checkpoints"},
    {"cli", "demo", "__main__"},
]
NAMED = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package with its file, by its name as installed."""
    found = {}
    for top in ("unialign_gen", *FOLDERS):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = ("unialign_gen", *parts) if top in FOLDERS else parts
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imported(name: str, path: Path, tree: ast.AST, known: set[str]) -> set[str]:
    """The modules of the package that a file imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
        else:
            continue
        out |= {n for n in names if n.split(".")[0] == "unialign_gen"}
    return out


def level(name: str) -> int:
    parts = name.split(".")
    return NAMED.get(parts[1] if len(parts) > 1 else "core", 0)


def arrows() -> list[tuple[str, str]]:
    found = modules()
    known = set(found)
    pairs = []
    for name, path in found.items():
        if name == "unialign_gen":  # the face imports what it shows when it is asked for
            continue
        pairs += [(name, other) for other in imported(name, path, ast.parse(path.read_text()), known)]
    return pairs


def test_no_arrow_goes_back():
    back = sorted(f"{a} imports {b}" for a, b in arrows() if level(b) > level(a))
    assert not back, "\n".join(back)


def test_nothing_imports_the_recipe():
    recipe = "unialign_gen.checkpoints.recipe"
    assert not [(a, b) for a, b in arrows() if b.startswith(recipe) and not a.startswith(recipe)]


def test_nothing_uses_a_module_by_its_name_in_the_first_edition():
    assert not [(a, b) for a, b in arrows() if b.removeprefix("unialign_gen.") in MODULES]


def test_there_is_no_circle():
    graph: dict[str, set[str]] = {}
    for a, b in arrows():
        if a != b and b != "unialign_gen":
            graph.setdefault(a, set()).add(b)
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            pytest.fail(" -> ".join([*way[way.index(name) :], name]))
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            if other != name.rpartition(".")[0]:  # a module may ask its own package for its face
                visit(other, (*way, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize(
    ("name", "code", "back"),
    [
        ("unialign_gen.mixing", "def f():\n    from .pipelines import EmbedScale", "unialign_gen.pipelines"),
        ("unialign_gen.pipelines.prompted", "from unialign_gen.training import train", "unialign_gen.training.train"),
        ("unialign_gen.eval.frechet", "import unialign_gen.cli.app", "unialign_gen.cli.app"),
    ],
)
def test_an_arrow_that_is_turned_back_is_found(name, code, back):
    found = imported(name, modules()[name], ast.parse(code), set(modules()))
    assert back in found
    assert level(back) > level(name)
