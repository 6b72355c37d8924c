"""Features of the frozen encoders, computed once and kept in files."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unialign_gen.data.manifest import Row
from unialign_gen.encoders import aisfx, load_encoder, yamnet
from unialign_gen.media import load_sound

from .concepts import unit_hash
from .files import progress, save_array

CHUNK = 1024  # pictures or texts a file
BATCH = 64
FRAMES = {"YAMNet": yamnet.FRAMES, "AiSFX": aisfx.FRAMES}  # of a block
VERSIONS = {"rec": 5, "fx": 5, "font": 2, "speech": 2}  # of each sound that is trained on: itself, and augmented


def fast(encoder: torch.nn.Module, example: Tensor) -> Callable[[Tensor], np.ndarray]:
    """The encoder in OpenVINO, fp32: several times as fast on a processor as in PyTorch, equal to 1e-6."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing turns into constants
        compiled = openvino.compile_model(openvino.convert_model(encoder, example_input=(example,)), "CPU", options)
    return lambda x: compiled([x.numpy()])[0].copy()


@functools.cache
def compiled(folder: Path) -> Callable[[Sequence[Any]], np.ndarray]:
    """The picture or text encoder in a folder: from pictures, or texts, to features (N, width), fp16."""
    encoder = load_encoder(folder)
    example: list[Any] = ["a dog", "two cats"] if folder.name == "text" else [Image.new("RGB", (8, 8))] * 2
    prepare, run = encoder.prepare, fast(encoder, encoder.prepare(example))

    def encode(inputs: Sequence[Any]) -> np.ndarray:
        parts = [run(prepare(list(inputs[i : i + BATCH]))) for i in range(0, len(inputs), BATCH)]
        return np.concatenate(parts).astype(np.float16)

    return encode


def of_pictures(root: Path, pixels: np.ndarray, kind: str = "image") -> np.ndarray:
    """Features (N, width) fp16 of pictures uint8 (N, h, w, 3), by the encoder in `root/encoders/<kind>`.

    Kept by the pixels' own digest, so nothing goes stale, and what is there is not computed again.
    """
    out = []
    for at in progress(range(0, len(pixels), CHUNK), f"thousands of pictures ({kind})"):
        part = np.ascontiguousarray(pixels[at : at + CHUNK])
        path = root / "features" / kind / f"{hashlib.sha256(part.data).hexdigest()[:24]}.npy"
        if not path.exists():
            save_array(path, compiled(root / "encoders" / kind)([Image.fromarray(picture) for picture in part]))
        out.append(np.load(path))
    return np.concatenate(out)


class TextFeatures:
    """Features (384,) of texts, by text, kept in `root/features/text`, a pair of files for each thousand."""

    def __init__(self, root: Path):
        self.encoder, self.folder = root / "encoders" / "text", root / "features" / "text"
        self.known: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("[0-9]*.npy")):  # not what a kill left
            self.known.update(zip(json.loads(path.with_suffix(".json").read_text()), np.load(path), strict=True))

    def encode(self, texts: Sequence[str]) -> None:
        """Computes what is not known yet."""
        todo = sorted({t for t in texts if t not in self.known}, key=lambda t: (len(t), t))  # by length: little padding
        for at in progress(range(0, len(todo), CHUNK), "thousands of texts"):
            part = todo[at : at + CHUNK]
            values = compiled(self.encoder)(part)
            path = self.folder / f"{len(list(self.folder.glob('[0-9]*.npy'))):05d}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".json").write_text(json.dumps(part))
            save_array(path, values)  # last: without it the texts beside it do not count
            self.known.update(zip(part, values, strict=True))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), 384), fp32."""
        self.encode(texts)
        return torch.from_numpy(np.stack([self.known[t] for t in texts])).float()


def augment(samples: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A sound (n,) as another microphone might have heard it.

    Cut in time, another rate of play by up to 6 %, low-passed (game files often stop at 5 or 8 kHz), a little of another
    sound or of noise mixed in. Gain is left alone: the encoders normalise it.
    """

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    if len(samples) > 2 * aisfx.RATE and uniform() < 0.6:
        keep = int(len(samples) * uniform(0.4, 0.9))
        start = int(uniform(0, len(samples) - keep))
        samples = samples[start : start + keep]
    if uniform() < 0.5:
        samples = F.interpolate(samples[None, None], scale_factor=uniform(0.94, 1.06), mode="linear")[0, 0]
    if uniform() < 0.4:
        spectrum = torch.fft.rfft(samples)
        spectrum[int(len(spectrum) * uniform(4000, 12000) / (aisfx.RATE / 2)) :] = 0
        samples = torch.fft.irfft(spectrum, len(samples))
    peak = samples.abs().max().clamp(min=1e-4)
    if uniform() < 0.3 and len(others):
        other = F.pad(others, (0, max(0, len(samples) - len(others))))[: len(samples)]
        samples = samples + other / other.abs().max().clamp(min=1e-4) * peak * uniform(0.02, 0.2)
    if uniform() < 0.5:
        samples = samples + torch.randn(len(samples), generator=generator) * peak * 10 ** uniform(-4, -1.5)
    return F.pad(samples, (int(uniform() * aisfx.RATE), 0)) if uniform() < 0.5 else samples


@functools.cache
def sound_encoder(folder: Path) -> Any:
    """The sound encoder in a folder, with its networks, which take blocks (N, frames, bands), in OpenVINO."""
    encoder: Any = load_encoder(folder)
    for part, bands in zip(encoder.parts.values(), encoder.bands, strict=True):
        part.forward = part.embed  # what is compiled
        run = fast(part, torch.zeros(2, FRAMES[type(part).__name__], bands))
        del part.forward
        part.embed = lambda blocks, run=run: torch.from_numpy(run(blocks))
    return encoder


def of_sounds(root: Path, rows: Sequence[Row]) -> list[Tensor]:
    """Features (versions, width) of each sound: as it is first, then, of those that are trained on, augmented versions."""
    out = []
    load = functools.lru_cache(2)(lambda path: load_sound(root / path, aisfx.RATE))
    for number, row in enumerate(progress(rows, "sounds")):
        path = root / "features" / "audio" / f"{row.id}.npy"
        if not path.exists():
            sound, other = load(row.path), load(rows[number - 1].path) if number else torch.zeros(0)
            generator = torch.Generator().manual_seed(int(unit_hash("augment", row.id) * 2**31))
            versions = VERSIONS[row.style] if row.split == "train" else 1
            heard = [sound, *(augment(sound, other, generator) for _ in range(versions - 1))]
            encoder = sound_encoder(root / "encoders" / "audio")
            save_array(path, encoder(encoder.prepare(heard)).numpy())
        out.append(torch.from_numpy(np.load(path)))
    return out
