"""Single notes, phrases and effects out of SoundFonts (real samples, rendered here)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unialign_gen.encoders.aisfx import RATE

from .plan import table

Note = tuple[float, int, int, float]  # start in seconds, key, velocity, length in seconds
Job = tuple[str, str, int, int, list[Note], float]  # concept, tag, bank, program, notes, seconds


# suffix, (start, velocity) of each stroke, length of a stroke, seconds
BEAT = ("", ((0.0, 110), (0.5, 80), (1.0, 100), (1.25, 90)), 0.3, 2.6)
FILL = ("-fill", ((0.0, 90), (0.3, 60), (0.6, 110), (0.75, 80), (1.2, 100)), 0.2, 2.2)
# name, which key of the instrument to start from, semitones up, seconds apart, velocity, length, seconds
PHRASES = (("phrase", 0, (0, 4, 7, 12, 7, 4, 0), 0.35, 95, 0.33, 3.4),)
MORE_PHRASES = (
    ("run", -1, (0, 2, 4, 5, 7, 5, 4, 2, 0), 0.25, 80, 0.22, 3.0),
    ("chord", 0, (0, 4, 7), 0.0, 80, 1.6, 2.6),
    ("leaps", -1, (0, -5, 3, -2), 0.5, 100, 0.45, 2.8),
)
EFFECTS = 120  # General MIDI's programs from here on are sounds of things
STEPS = ((-4, 60, 0.7), (2, 90, 2.2), (5, 115, 1.2))  # semitones up, velocity, seconds
EFFECT_STEPS = ((-5, 110, 2.0), (3, 85, 2.0), (8, 64, 1.2))


def jobs(sets: str, more: bool) -> Iterator[Job]:
    """What fonts are asked to play of these sets of `tables/instruments.tsv`; with `more` other keys, lengths and phrases."""
    for row in table("instruments"):
        if row["set"] not in sets.split():
            continue
        keys, preset = [int(key) for key in row["keys"].split()], (int(row["bank"]), int(row["program"]))
        concept, tag, effect = row["concept"], f"{row['bank']}-{row['program']}", preset[1] >= EFFECTS
        if row["set"] == "drum":
            suffix, beat, length, seconds = FILL if more else BEAT
            for key in keys:
                yield concept, f"drum-{key}{suffix}", *preset, [(t, key, v, length) for t, v in beat], seconds
            continue
        for i, key in enumerate(keys):
            if more:
                for up, velocity, length in EFFECT_STEPS if effect else STEPS:
                    yield concept, f"{tag}-{key}{up:+d}", *preset, [(0.0, key + up, velocity, length)], length + 1
            else:
                note = (0.0, key, 100 if i % 2 == 0 else 72, 3.0 if effect else 1.5)
                yield concept, f"{tag}-{key}", *preset, [note], 4.0 if effect else 2.4
        if row["set"] == "gm" and not effect:
            for name, start, steps, apart, velocity, length, seconds in MORE_PHRASES if more else PHRASES:
                notes = [(apart * n, keys[start] + up, velocity, length) for n, up in enumerate(steps)]
                yield concept, f"{tag}-{name}", *preset, notes, seconds


def asked(font: dict[str, str]) -> list[Job]:
    """Everything a row of `tables/fonts.tsv` plays: more than the others, if it is trained on."""
    return [*jobs(font["sets"], more=False), *(() if font["tier"] == "C" else jobs(font["sets"], more=True))]


def play(synth: Any, font: int, bank: int, program: int, notes: list[Note], seconds: float) -> np.ndarray:
    """Renders one job to mono samples at 44.1 kHz."""
    drum = bank == 128
    channel = 9 if drum else 0
    synth.program_select(channel, font, bank, program, drum)
    events = [(int(s * RATE), 1, k, v) for s, k, v, _ in notes] + [(int((s + d) * RATE), 0, k, 0) for s, k, _, d in notes]
    parts, at = [], 0

    def generate(count: int) -> np.ndarray:
        return np.frombuffer(bytes(synth.generate(count)), dtype=np.float32).reshape(-1, 2).mean(1)

    for when, on, key, velocity in [*sorted(events), (int(seconds * RATE), 0, 0, 0)]:
        if when > at:
            parts.append(generate(when - at))
            at = when
        if on:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    synth.sounds_off(channel)
    generate(RATE // 2)  # lets what still rings fade before the next job
    return np.concatenate(parts)


def render_all(unpacked: Path) -> Iterator[tuple[np.ndarray, str, str, dict[str, str]]]:
    """Every render: samples, file name, concept, font. A preset that a font lacks renders silence."""
    import tinysoundfont

    for font in table("fonts"):
        synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
        loaded = synth.sfload(str(unpacked / font["path"]))
        for concept, tag, bank, program, notes, seconds in asked(font):
            name = f"{font['source']}-{tag}-{concept.replace(' ', '_')}.flac"
            yield play(synth, loaded, bank, program, notes, seconds), name, concept, font
