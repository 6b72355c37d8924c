"""Seconds until each command says something, the least of some runs: what a person waits for in front of an empty line.

    python benchmarks/first_sign.py [--runs 3] [COMMAND ...]

Each is started with valid, tiny inputs in a folder of its own, and stopped after its first line.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml

from unialign_gen.loading import shipped_folder


def commands(folder: Path) -> dict[str, list[str]]:
    """Every command with inputs that pass its first checks; what they need is made in `folder`."""
    samples, out = shipped_folder() / "samples", str(folder / "out")
    for name in ("features", "pictures", "results"):
        (folder / name).mkdir()
    (folder / "released.pt").write_bytes(b"?")
    (folder / "corpus.jsonl").write_text('{"id": "1", "text": "a cow"}\n')
    (folder / "pictures" / "manifest.jsonl").touch()
    corpus = {"kind": "manifest", "manifest": str(folder / "corpus.jsonl")}
    extract = {"corpus": corpus, "encoders": {"text": "starter"}, "out": out}
    stream = {"draw": {"a": 1}, "modalities": ["text", "image"], "batch": 2}
    train = {"out": out, "caches": {"a": str(folder)}, "heads": {"text": {}}, "streams": [stream], "steps": 1}
    for name, config in (("extract", extract), ("train", train)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    features = ["--features", str(folder / "features"), "--out", out]
    return {
        "generate": ["--text", "a dog", "--audio", str(samples / "cow.flac"), "--out", f"{out}.png"],
        "interpolate": ["--from", "text:a cat", "--to", f"audio:{samples / 'cow.flac'}", "--out", f"{out}.gif"],
        "embed": ["--text", "a dog", "--out", f"{out}.safetensors"],
        "showcase": ["--out", f"{out}.png"],
        "edit": [str(samples / "pictures" / "bison.webp"), "--text", "a dog", "--out", f"{out}.png"],
        "animate": [str(samples / "cow.flac"), "--out", f"{out}.mp4"],
        "demo": [],
        "models": [],
        "push": ["starter", "me/starter"],
        "doctor": [],
        "calibrate": ["--checkpoint", "kandinsky", "--out", out],
        "split": [str(folder / "released.pt"), "--tokenizer", str(folder), "--out", out],
        "extract": [str(folder / "extract.yaml")],
        "caption": [str(folder / "extract.yaml"), "--model", str(folder), "--out", f"{out}.jsonl"],
        "bench": ["synthetic"],
        "bridge events": ["--out", out],
        "bridge text": ["--space", "hf:none", "--out", out],
        "bridge pairs": features,
        "train": [str(folder / "train.yaml")],
        "eval concepts": ["--data", str(folder / "pictures")],
        "eval generation": ["--dataset", "starter", "--root", str(folder), "--out", out],
        "eval statistics": [str(folder / "pictures"), "--out", f"{out}.safetensors"],
        "eval distance": [str(folder / "pictures"), str(folder / "pictures")],
        "eval report": [str(folder / "results"), "--out", out],
        "eval decoders": [],
        "eval mteb": ["--task", "VGGSoundAVRetrieval", "--out", out],
        "eval export": ["--out", out],
        "eval retrieval": features,
        "eval gap": features,
    }


def first_sign(words: list[str], folder: Path) -> tuple[float, str]:
    """Seconds to the first line on stderr or stdout, and the line."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "unialign_gen", *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - start
        process.kill()
    return took, line.strip()


def main(
    command: Annotated[list[str] | None, typer.Argument(help="Such as generate or 'eval gap'; all by default.")] = None,
    runs: int = 3,
) -> None:
    """Seconds and first line of each command."""
    with tempfile.TemporaryDirectory() as name:
        known = commands(Path(name))
        for words in command or known:
            tries = [first_sign([*words.split(), *known[words]], Path(name)) for _ in range(runs)]
            typer.echo(f"{words:<16} {min(t for t, _ in tries):.2f} s   {tries[0][1]}")


if __name__ == "__main__":
    typer.run(main)
