"""Features of the frozen encoders, computed once and kept, so that every head trains from memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from unialign_gen.encoders import load_encoder
from unialign_gen.encoders.aisfx import RATE
from unialign_gen.encoders.base import Encoder
from unialign_gen.media import load_sound

from .manifest import Row
from .splits import unit_hash
from .training import log

COMPILE_FROM = 8000  # compiling takes minutes


def fast(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """Compiled with folded weights: about 1.6 times as fast on a CPU, equal to 1e-6."""
    import torch._inductor.config as config

    config.freezing = True
    return torch.compile(encoder.to(memory_format=torch.channels_last))


@torch.no_grad()
def of_pictures(root: Path, rows: Sequence[Row], kind: str, batch: int = 64) -> Tensor:
    """Encoder features (N, dim) of the rows' pictures, through `root/features/<kind>.safetensors`.

    A row that the file already holds is not computed again; every 2,000 new ones the file is written.
    """
    path = root / "features" / f"{kind}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Tensor] = load_file(path) if path.exists() else {}
    todo = [row for row in rows if row.id not in known]
    if todo:
        encoder = load_encoder(root / "encoders" / kind)
        run = fast(encoder) if len(todo) > COMPILE_FROM else encoder
        for at in range(0, len(todo), batch):
            part = todo[at : at + batch]
            pixels = encoder.prepare([Image.open(root / row.path) for row in part])
            pixels = torch.cat([pixels, pixels[-1:].expand(batch - len(part), -1, -1, -1)])
            out = run(pixels.contiguous(memory_format=torch.channels_last))
            known.update({row.id: out[i].clone() for i, row in enumerate(part)})
            if (at // batch) % 32 == 31 or at + batch >= len(todo):
                save_file(known, path)
                log(root / "features" / "log.jsonl", done=at + len(part), of=len(todo))
    return torch.stack([known[row.id] for row in rows])


@torch.no_grad()
def of_texts(root: Path, texts: Sequence[str], batch: int = 128) -> dict[str, Tensor]:
    """Text features (384,) by text, kept in `root/features`."""
    path = root / "features" / "text.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    index = path.with_suffix(".json")
    known: dict[str, Tensor] = {}
    if path.exists():
        known = dict(zip(json.loads(index.read_text()), load_file(path)["features"], strict=True))
    todo = sorted({t for t in texts if t not in known}, key=len)  # sorted: little padding
    if todo:
        encoder = load_encoder(root / "encoders" / "text")
        for at in range(0, len(todo), batch):
            part = todo[at : at + batch]
            known.update(zip(part, encoder(encoder.prepare(part)), strict=True))
        save_file({"features": torch.stack(list(known.values()))}, path)
        index.write_text(json.dumps(list(known)))
    return known


def augment(samples: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A sound (n,) as another microphone might have heard it.

    Cut in time, another rate of play by up to 6 %, low-passed (game files often stop at 5 or 8 kHz), a little of another
    sound or of noise mixed in. Gain is left alone: the encoders normalise it.
    """

    def chance(p: float) -> bool:
        return float(torch.rand(1, generator=generator)) < p

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    if len(samples) > 2 * RATE and chance(0.6):
        keep = int(len(samples) * uniform(0.4, 0.9))
        start = int(uniform(0, len(samples) - keep))
        samples = samples[start : start + keep]
    if chance(0.5):
        samples = F.interpolate(samples[None, None], scale_factor=uniform(0.94, 1.06), mode="linear")[0, 0]
    if chance(0.4):
        spectrum = torch.fft.rfft(samples)
        cut = int(len(spectrum) * uniform(4000, 12000) / (RATE / 2))
        spectrum[cut:] = 0
        samples = torch.fft.irfft(spectrum, len(samples))
    peak = samples.abs().max().clamp(min=1e-4)
    if chance(0.3) and len(others):
        other = F.pad(others, (0, max(0, len(samples) - len(others))))[: len(samples)]
        samples = samples + other / other.abs().max().clamp(min=1e-4) * peak * uniform(0.02, 0.2)
    if chance(0.5):
        samples = samples + torch.randn(len(samples), generator=generator) * peak * 10 ** uniform(-4, -1.5)
    if chance(0.5):
        samples = F.pad(samples, (int(uniform(0, 1) * RATE), 0))
    return samples


@torch.no_grad()
def of_sounds(root: Path, rows: Sequence[Row], versions: int) -> Tensor:
    """Encoder features (N, versions, d): the sound as it is first, then augmented versions; kept in `root/features`."""
    path = root / "features" / f"audio{versions}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Tensor] = load_file(path) if path.exists() else {}
    todo = [row for row in rows if row.id not in known]
    if todo:
        encoder = load_encoder(root / "encoders" / "audio")
        other = torch.zeros(0)
        for number, row in enumerate(todo):
            sound = load_sound(root / row.path, RATE)
            generator = torch.Generator().manual_seed(int(unit_hash("augment", row.id) * 2**31))
            heard = [sound] + [augment(sound, other, generator) for _ in range(versions - 1)]
            known[row.id] = encoder(encoder.prepare(heard))
            other = sound
            if number % 200 == 199 or row is todo[-1]:
                save_file(known, path)
                log(root / "features" / "log.jsonl", done=number + 1, of=len(todo))
    return torch.stack([known[row.id] for row in rows])
