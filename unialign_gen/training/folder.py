"""The run folder: configuration, versions, metrics, the state to resume from, and the heads that are kept.

`heads/MODALITY` holds `head.json` and `head.safetensors`; beside them lies a trained encoder (`config.json`,
`model.safetensors`), and `encoder.json` says where the encoder is that the head goes on: its description, or `folder`. Its
`file`, if it has one, is `encoder.py` beside it, which defines an encoder of one's own.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any

import torch

from .. import __version__
from ..config import load, to_dict
from ..data.storage import write_rows, write_whole
from ..encoders import save_encoder
from ..encoders.base import Encoder
from ..errors import InputError, as_input_error
from ..heads import Head, save_head
from ..output import check_folder, make_folder
from .config import TrainConfig
from .model import Heads

CONFIG, ABOUT, METRICS, STATE, HEADS = "config.yaml", "about.json", "metrics.jsonl", "state.pt", "heads"
PACKAGES = ("torch", "accelerate", "diffusers", "transformers", "safetensors", "numpy")
FREE = {  # what a resumed run may change
    *("out", "steps", "epochs", "save_every", "sharded_state", "trackers", "micro_batch", "workers"),
    *("activation_checkpointing", "compile"),
}


def about() -> dict[str, Any]:
    """Versions, and the state of the git repository that the run was started in, if it is one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {
        "unialign_gen": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "git": {"commit": git("rev-parse", "HEAD"), "changed": None if changes is None else bool(changes)},
    }


class RunFolder:
    """Everything a run writes. Each file is replaced in one step: a kill at any moment leaves the old one or the new one."""

    def __init__(self, path: Path):
        self.path = path

    def check(self, config: TrainConfig) -> None:
        """Finds that the folder can be made, or that it holds a run of the same configuration to go on with. Writes nothing.

        Raises:
            InputError: it cannot be written to, or holds a run of another configuration; the line names the entry.
        """
        check_folder(self.path)
        file = self.path / CONFIG
        if (self.path / HEADS).exists() and not file.is_file():
            raise InputError(f"{self.path} holds heads that no run wrote there, which would go: choose another folder")
        if not (file.is_file() and (self.path / STATE).is_file()):
            return
        now, before = to_dict(config), to_dict(load(TrainConfig, file))
        for key in now:
            if key not in FREE and before[key] != now[key]:
                raise InputError(
                    f"{self.path} holds a run with another {key}: choose another folder, or delete it to start anew"
                )

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Finds that the run to go on with, if there is one, was of the same inputs; one of before does not say.

        Raises:
            InputError: what lies where an entry names it has changed.
        """
        before = self.said().get("inputs", {}) if (self.path / STATE).is_file() else {}
        if changed := [key for key, value in inputs.items() if before.get(key, value) != value]:
            raise InputError(
                f"{self.path} holds a run of which {changed[0]} was another: what lies there has changed since. Choose another "
                "folder, or delete it to start anew"
            )

    def said(self) -> dict[str, Any]:
        """What `start` wrote of the run, nothing where it has not."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.path / ABOUT).read_text()))
        return {}

    def start(self, config: TrainConfig, inputs: Mapping[str, str]) -> str:
        """Makes the folder, writes configuration and versions, and returns the run's id, which stays when it is resumed.

        Heads that lie there without a state are of a run that begins again: they go.
        """
        import yaml

        make_folder(self.path)
        if not (self.path / STATE).is_file():
            shutil.rmtree(self.path / HEADS, ignore_errors=True)
            (self.path / "problems.jsonl").unlink(missing_ok=True)
        name = str(self.said().get("id") or uuid.uuid4().hex[:8])
        write_whole(self.path / CONFIG, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True).encode())
        write_whole(self.path / ABOUT, (json.dumps({"id": name, **about(), "inputs": inputs}, indent=2) + "\n").encode())
        return name

    def save_state(self, state: dict[str, Any]) -> None:
        part = self.path / f".{STATE}.part"
        torch.save(state, part)
        os.replace(part, self.path / STATE)

    def forget_shares(self, but: str) -> None:
        """Removes the shares of all states but one."""
        for path in self.path.glob("state-*"):
            if path.name != but and path.is_dir() and path.name.removeprefix("state-").isdecimal():
                shutil.rmtree(path)

    def load_state(self) -> dict[str, Any] | None:
        """The state that was saved last, if there is one; read without unpickling code."""
        path = self.path / STATE
        cut = f"{path} cannot be read, it may be cut off: delete it to start anew ({{first}})"
        with as_input_error(cut, RuntimeError, OSError, ValueError, EOFError, UnpicklingError):
            return torch.load(path, weights_only=True, map_location="cpu", mmap=True) if path.is_file() else None

    def log(self, row: Mapping[str, Any]) -> None:
        with (self.path / METRICS).open("a") as f:
            f.write(json.dumps(row) + "\n")

    def keep_problems(self, found: Iterable[Mapping[str, str]]) -> None:
        """Writes what could not be read, each once, beside what was found before the run was resumed."""
        path = self.path / "problems.jsonl"
        before = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        rows = {json.dumps(row, sort_keys=True): row for row in [*before, *found]}
        write_rows(path, list(rows.values()))

    def forget_after(self, step: int) -> None:
        """Drops the metrics of steps that a resumed run is about to do again."""
        path = self.path / METRICS
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_whole(path, "".join(line + "\n" for line in kept).encode())

    def keep(self, trained: Heads, descriptions: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        """Writes the heads, a folder for each modality with its encoder if that was trained, in place of those kept before.

        The first ones appear together; later ones take their place file by file, so that `heads` is whole at any moment.

        Args:
            descriptions: where each modality's encoder is, see `cache.read_descriptions`.
        """
        part = self.path / f".{HEADS}.part"
        shutil.rmtree(part, ignore_errors=True)
        for name, head in trained.heads.items():
            assert isinstance(head, Head)
            save_head(head, part / name)
            if name in descriptions:
                write_description(descriptions[name], part / name)
            if name in trained.encoders:
                encoder = trained.encoders[name]
                assert isinstance(encoder, Encoder)
                save_encoder(encoder, part / name)
        target = self.path / HEADS
        if not target.exists():
            part.rename(target)
            return
        shutil.copytree(part, target, copy_function=os.replace, dirs_exist_ok=True)
        shutil.rmtree(part)


def write_description(description: Mapping[str, Any], folder: Path) -> None:
    """Writes `encoder.json`, and a copy of the Python file that defines the encoder."""
    entry = dict(description)
    if "file" in entry:
        shutil.copyfile(Path(entry["file"]).expanduser(), folder / "encoder.py")
        entry["file"] = "encoder.py"
    (folder / "encoder.json").write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", "utf-8")
