"""Training and extraction configurations that come with the package."""

from importlib import resources
from pathlib import Path

from ..errors import InputError


def configs_folder() -> Path:
    """The folder of the YAML files."""
    return Path(str(resources.files(__package__)))


def find_config(name: str, command: str) -> Path:
    """A configuration by its path or, of those that come with the package, by its name.

    Args:
        command: `train` or `extract`; `extract clips` is the extraction that `train clips` needs.

    Raises:
        InputError: no such file or name; the line lists the names.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.parent != Path(".") or path.is_file():
        return path
    shipped = {p.stem: p for p in sorted(configs_folder().glob("*.yaml"))}
    extracts = {stem.removesuffix("-extract"): p for stem, p in shipped.items() if stem.endswith("-extract")}
    trains = {stem: p for stem, p in shipped.items() if not stem.endswith("-extract")}
    known = extracts | {f"{stem}-extract": p for stem, p in extracts.items()} if command == "extract" else trains
    if name not in known:
        names = ", ".join(extracts if command == "extract" else trains)
        raise InputError(f"no configuration {name}: name a YAML file, or one that comes with the package: {names}")
    return known[name]
