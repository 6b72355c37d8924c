"""The checkpoints of this disk that the page can draw with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..loading import DECODERS, describe, own_prior, own_settings


@dataclass(frozen=True)
class Model:
    """A checkpoint that is on this disk, with one of its decoders, and the steps, guidance and prior it takes of itself.

    `prior` is the strength, None where there is no prior.
    """

    label: str
    checkpoint: str
    decoder: str | None
    steps: int
    guidance: float
    prior: float | None = None

    @classmethod
    def of(cls, label: str, checkpoint: str, decoder: str | None = None) -> Model:
        return cls(label, checkpoint, decoder, *own_settings(checkpoint, decoder), own_prior(checkpoint))


def on_disk(extra: str | None = None) -> list[Model]:
    """What can be drawn with, without a download; `extra` comes first: one of these, or a folder."""
    found = []
    for row in describe():
        if not row["on_disk"] or row.get("moving"):  # the page shows pictures
            continue
        decoders = row.get("decoders", [None])
        for decoder in decoders:
            label = row["name"] if decoder in (None, DECODERS[0]) else f"{row['name']}, {decoder} decoder"
            found.append(Model.of(label, row["name"], None if decoder == DECODERS[0] else decoder))
    if extra is not None:
        known = [m for m in found if m.checkpoint == extra]
        if not known:
            name = Path(extra).name
            known = [Model.of(f"{name}, from a folder" if name in {m.label for m in found} else name, extra)]
        found = [*known, *(m for m in found if m not in known)]
    return found
