"""Single notes, phrases and effects out of SoundFonts (real samples, rendered here)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unialign_gen.encoders.aisfx import RATE

from .concepts import table

Note = tuple[float, int, int, float]  # start in seconds, key, velocity, length in seconds
Job = tuple[str, str, int, int, list[Note], float]  # concept, tag, bank, program, notes, seconds


@dataclass
class Font:
    """A SoundFont file and which sets of `tables/instruments.tsv` it is rendered with."""

    source: str
    path: str
    licence: str
    tier: str
    sets: tuple[str, ...]


FONTS = [
    Font("fluid-gm", "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2", "MIT", "A", ("gm", "drum")),
    Font("fluid-gs", "fluid-soundfont-gs/usr/share/sounds/sf2/FluidR3_GS.sf2", "MIT", "A", ("gs",)),
    Font("csound-gm", "csound-soundfont/usr/share/sounds/sf2/sf_GMbank.sf2", "public domain", "A", ("gm", "drum", "gs")),
    Font("timgm6mb", "timgm6mb-soundfont/usr/share/sounds/sf2/TimGM6mb.sf2", "GPL-2.0", "C", ("gm", "drum")),
]
BEAT = ((0.0, 110), (0.5, 80), (1.0, 100), (1.25, 90))
FILL = ((0.0, 90), (0.3, 60), (0.6, 110), (0.75, 80), (1.2, 100))
EFFECTS = 120  # General MIDI's programs from here on are sounds of things
STEPS = ((-4, 60, 0.7), (2, 90, 2.2), (5, 115, 1.2))  # semitones up, velocity, seconds
EFFECT_STEPS = ((-5, 110, 2.0), (3, 85, 2.0), (8, 64, 1.2))


def instruments(sets: tuple[str, ...]) -> Iterator[tuple[str, str, int, int, list[int]]]:
    """(set, concept, bank, program, keys) of the rows of `tables/instruments.tsv` in these sets."""
    for row in table("instruments"):
        if row["set"] in sets:
            keys = [int(key) for key in row["keys"].split()]
            yield row["set"], row["concept"], int(row["bank"]), int(row["program"]), keys


def jobs(sets: tuple[str, ...]) -> Iterator[Job]:
    """What every font is asked to play."""
    for name, concept, bank, program, keys in instruments(sets):
        for i, key in enumerate(keys):
            if name == "drum":
                yield concept, f"drum-{key}", bank, program, [(t, key, v, 0.3) for t, v in BEAT], 2.6
            else:
                effect = program >= EFFECTS
                note = (0.0, key, 100 if i % 2 == 0 else 72, 3.0 if effect else 1.5)
                yield concept, f"{bank}-{program}-{key}", bank, program, [note], 4.0 if effect else 2.4
        if name == "gm" and program < EFFECTS:
            scale = [0, 4, 7, 12, 7, 4, 0]
            phrase = [(0.35 * n, keys[0] + up, 95, 0.33) for n, up in enumerate(scale)]
            yield concept, f"{bank}-{program}-phrase", bank, program, phrase, 3.4


def variations(sets: tuple[str, ...]) -> Iterator[Job]:
    """More of the same: other keys, velocities and lengths, and phrases."""
    for name, concept, bank, program, keys in instruments(sets):
        tag = f"{bank}-{program}"
        if name == "drum":
            for key in keys:
                yield concept, f"drum-{key}-fill", bank, program, [(t, key, v, 0.2) for t, v in FILL], 2.2
            continue
        for key in keys:
            for up, velocity, length in EFFECT_STEPS if program >= EFFECTS else STEPS:
                note = (0.0, key + up, velocity, length)
                yield concept, f"{tag}-{key}{up:+d}", bank, program, [note], length + 1
        if name == "gm" and program < EFFECTS:
            low, high = keys[0], keys[-1]
            run = [(0.25 * n, high + up, 80, 0.22) for n, up in enumerate((0, 2, 4, 5, 7, 5, 4, 2, 0))]
            leaps = [(0.5 * n, high + up, 100, 0.45) for n, up in enumerate((0, -5, 3, -2))]
            yield concept, f"{tag}-run", bank, program, run, 3.0
            yield concept, f"{tag}-chord", bank, program, [(0.0, low + up, 80, 1.6) for up in (0, 4, 7)], 2.6
            yield concept, f"{tag}-leaps", bank, program, leaps, 2.8


def asked(font: Font) -> list[Job]:
    """Everything a font plays: more than the others, if it is trained on."""
    return [*jobs(font.sets), *(() if font.tier == "C" else variations(font.sets))]


def play(synth: Any, font: int, bank: int, program: int, notes: list[Note], seconds: float) -> np.ndarray:
    """Renders one job to mono samples at 44.1 kHz."""
    drum = bank == 128
    channel = 9 if drum else 0
    synth.program_select(channel, font, bank, program, drum)
    events = sorted(
        [(int(s * RATE), 1, k, v) for s, k, v, _ in notes] + [(int((s + d) * RATE), 0, k, 0) for s, k, _, d in notes]
    )
    parts, at, total = [], 0, int(seconds * RATE)

    def generate(count: int) -> np.ndarray:
        return np.frombuffer(bytes(synth.generate(count)), dtype=np.float32).reshape(-1, 2).mean(1)

    for when, on, key, velocity in events:
        if min(when, total) > at:
            parts.append(generate(min(when, total) - at))
            at = min(when, total)
        if on:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    if at < total:
        parts.append(generate(total - at))
    synth.sounds_off(channel)
    generate(RATE // 2)  # lets what still rings fade before the next job
    return np.concatenate(parts)


def render_all(unpacked: Path) -> Iterator[tuple[np.ndarray, str, str, Font]]:
    """Every render: samples, file name, concept, font. A preset that a font lacks renders silence."""
    import tinysoundfont

    for font in FONTS:
        synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
        loaded = synth.sfload(str(unpacked / font.path))
        for concept, tag, bank, program, notes, seconds in asked(font):
            name = f"{font.source}-{tag}-{concept.replace(' ', '_')}.flac"
            yield play(synth, loaded, bank, program, notes, seconds), name, concept, font
