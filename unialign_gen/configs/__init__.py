"""Training and extraction configurations that come with the package."""

from importlib import resources
from pathlib import Path


def configs_folder() -> Path:
    """The folder of the YAML files."""
    return Path(str(resources.files(__package__)))
