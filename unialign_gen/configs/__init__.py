"""Configurations that come with the package: of training, of extraction, of the bench."""

from importlib import resources
from pathlib import Path

from ..errors import InputError


def configs_folder() -> Path:
    """The folder of the YAML files."""
    return Path(str(resources.files(__package__)))


def find_config(name: str, command: str) -> Path:
    """A configuration by its path or, of those that come with the package, by its name.

    Args:
        command: `train`, `extract` or `bench`; `extract clips` is the extraction that `train clips` needs.

    Raises:
        InputError: no such file or name; the line lists the names.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.parent != Path(".") or path.is_file():
        return path
    shipped = {p.stem: p for p in sorted(configs_folder().glob("*.yaml"))}
    kinds = {
        suffix: {stem.removesuffix(suffix): p for stem, p in shipped.items() if stem.endswith(suffix)}
        for suffix in ("-extract", "-bench")
    }
    kinds["-train"] = {stem: p for stem, p in shipped.items() if not stem.endswith(("-extract", "-bench"))}
    suffix = f"-{command}"
    known = kinds[suffix] | {f"{stem}{suffix}": p for stem, p in kinds[suffix].items()}
    if name not in known:
        names = ", ".join(kinds[suffix])
        raise InputError(f"no configuration {name}: name a YAML file, or one that comes with the package: {names}")
    return known[name]
