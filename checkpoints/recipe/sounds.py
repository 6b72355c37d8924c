"""Recordings out of the unpacked packages, renders of SoundFont samples, and spoken names: mono FLAC at 44.1 kHz."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unialign_gen.data.manifest import Row
from unialign_gen.encoders.aisfx import RATE
from unialign_gen.media.recordings import read_blocks
from unialign_gen.notes import collected

from .concepts import CONCEPTS, article, unit_hash
from .files import found
from .plan import table

LONGEST, SHORTEST = 10.0, 0.12  # seconds
SUFFIXES = r"(?i)\.(ogg|wav|flac|mp3|oga|opus)$"
APART = "0ad"  # a source whose recordings are held out by themselves
ESPEAK = {"source": "espeak-ng", "licence": "own synthesis", "tier": "A"}
VOICES = [("en-us", 165, 50), ("en-gb", 150, 40), ("en-us+f3", 160, 60), ("en-gb-scotland+m4", 140, 45)]  # name, speed, pitch
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


def row(maker: Mapping[str, str], name: str, key: str, concept: str, style: str, split: str = "") -> Row:
    """The row of a sound by a maker's `source`, `licence` and `tier`; what is neither held out nor of tier C is trained on."""
    spoken, tier = style == "speech", maker["tier"]
    captions = [concept, f"a voice saying {article(concept)}" if spoken else f"the sound of {article(concept)}"]
    captions += [label for label in [CONCEPTS[concept]["vggsound"]] if label and not spoken]
    split = split or ("cross" if tier == "C" else "train")
    about = (maker["source"], key, maker["licence"], tier, [concept], style, captions, split)
    return Row(name, "sound", *about, f"audio/{name}.flac")


def takes(unpacked: Path) -> Iterator[tuple[Path, Row]]:
    """Every sound file that a rule of `tables/sounds.tsv` gives a concept, with its row: the first rule that matches wins."""
    for maker in table("sound_sources"):
        source = maker["source"]
        rules = [rule for rule in table("sounds") if rule["source"] == source]
        # the stamps' spoken descriptions lie beside their sounds
        for path, key in found(unpacked / maker["folder"], SUFFIXES, "_desc"):
            rule = next((rule for rule in rules if re.search(rule["pattern"], f"/{key}", re.I)), None)
            if rule:
                short = hashlib.sha1(f"{source}/{key}".encode()).hexdigest()[:8]
                name = f"{source}-{rule['concept'].replace(' ', '_')}-{short}"
                yield path, row(maker, name, key, rule["concept"], rule["kind"])


def trim(samples: np.ndarray) -> np.ndarray:
    """Cuts what is 46 dB below the peak off both ends."""
    if not len(samples) or np.abs(samples).max() < 1e-4:
        return samples[:0]
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() * 10 ** (-46 / 20))
    return samples[max(0, loud[0] - RATE // 100) : loud[-1] + RATE // 20]


def write_flac(samples: np.ndarray, path: Path) -> None:
    """Writes 16 bit mono at a common loudness, faded out."""
    import soundfile

    samples = samples - samples.mean()
    gain = min(0.9 / max(np.abs(samples).max(), 1e-6), 0.08 / max(float(np.sqrt((samples**2).mean())), 1e-5))
    samples = samples * gain
    fade = min(RATE // 200, len(samples) // 4)
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade)
    soundfile.write(path, samples, RATE, subtype="PCM_16")


def decode(path: Path) -> np.ndarray:
    """At most 45 s, mono, 44.1 kHz."""
    with collected():  # the notes are nobody's here
        return np.concatenate([block[0] for block in read_blocks(path, RATE, seconds=45)])


def convert(root: Path, path: Path, take: Row) -> tuple[str, list[Row]]:
    """Writes a recording as FLAC, of a long one at most three stretches of 10 s: a digest of its first second, and rows."""
    samples = trim(decode(path))
    if len(samples) < SHORTEST * RATE:
        return "", []
    digest = hashlib.sha1((samples[:RATE] / np.abs(samples).max() * 500).astype("int16").tobytes()).hexdigest()
    longest, rows = int(LONGEST * RATE), []
    count = max(1, min(3, len(samples) // longest))
    for i in range(count):
        name = f"{take.id}-{i}" if i else take.id
        rows.append(replace(take, id=name, path=f"audio/{name}.flac"))
        write_flac(samples[i * (len(samples) // count) :][:longest], root / rows[-1].path)
    return digest, rows


def build(unpacked: Path, root: Path, jobs: int) -> list[dict[str, Any]]:
    """Rows of all sounds of the data set, with their splits.

    Files whose names differ in a number only are one recording session and stay in one split. About 15 % of each concept's
    files of tiers A and B are held out; all of tier C is the cross-source set, one of the four voices is held out.
    """
    (root / "audio").mkdir(parents=True, exist_ok=True)
    rows, heard = list[Row](), set[str]()
    paths, recorded = zip(*takes(unpacked), strict=True)
    with ProcessPoolExecutor(jobs) as pool:
        for digest, made in pool.map(functools.partial(convert, root), paths, recorded, chunksize=8):
            for copy in made if digest in heard else ():
                (root / copy.path).unlink(missing_ok=True)
            rows += () if digest in heard else made
            heard.add(digest)
    hold_out(rows)
    for samples, one in itertools.chain(played(unpacked), spoken()):
        if len(samples := trim(samples)) >= SHORTEST * RATE:
            write_flac(samples, root / one.path)
            rows.append(one)
    return [vars(one) for one in rows]


def hold_out(rows: list[Row]) -> None:
    """Marks whole recording sessions as test until about 15 % of a concept's takes are, small sessions first."""
    groups: dict[tuple[str, bool], dict[str, list[Row]]] = {}
    for one in rows:
        if one.split != "cross":
            name = Path(one.key).stem  # takes of one session have the same up to the first number
            session = f"{one.source}:{re.sub('[0-9].*$', '', name.lower()) or name}"
            groups.setdefault((one.concepts[0], one.source == APART), {}).setdefault(session, []).append(one)
    for sessions in groups.values():
        total, held = sum(map(len, sessions.values())), 0
        for name in sorted(sessions, key=lambda name: (len(sessions[name]), unit_hash("take", name))):
            if len(sessions) >= 3 and held < max(1, 0.15 * total) and held + len(sessions[name]) <= 0.34 * total:
                held += len(sessions[name])
                for one in sessions[name]:
                    one.split = "test"


def jobs(font: Mapping[str, str]) -> Iterator[Job]:
    """What a row of `tables/fonts.tsv` is asked to play; if it is trained on, other keys, lengths and phrases too."""
    rounds = (False,) if font["tier"] == "C" else (False, True)
    for more, one in itertools.product(rounds, table("instruments")):
        if one["set"] not in font["sets"].split():
            continue
        keys, preset = [int(key) for key in one["keys"].split()], (int(one["bank"]), int(one["program"]))
        concept, tag, effect = one["concept"], f"{one['bank']}-{one['program']}", preset[1] >= EFFECTS
        if one["set"] == "drum":
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
        if one["set"] == "gm" and not effect:
            for name, start, steps, apart, velocity, length, seconds in MORE_PHRASES if more else PHRASES:
                notes = [(apart * n, keys[start] + up, velocity, length) for n, up in enumerate(steps)]
                yield concept, f"{tag}-{name}", *preset, notes, seconds


def play(synth: Any, font: int, bank: int, program: int, notes: list[Note], seconds: float) -> np.ndarray:
    """Renders one job to mono samples at 44.1 kHz."""
    drum = bank == 128
    channel = 9 if drum else 0
    synth.program_select(channel, font, bank, program, drum)
    # velocity 0 ends a note
    events = [(int(s * RATE), v, k) for s, k, v, _ in notes] + [(int((s + d) * RATE), 0, k) for s, k, _, d in notes]
    ends = (int(seconds * RATE), 0, 0)
    parts = []
    for (at, velocity, key), (until, _, _) in itertools.pairwise([(0, 0, 0), *sorted(events), ends]):
        synth.noteon(channel, key, velocity)
        parts.append(np.frombuffer(bytes(synth.generate(until - at)), np.float32))
    synth.sounds_off(channel)
    synth.generate(RATE // 2)  # lets what still rings fade before the next job
    return np.concatenate(parts).reshape(-1, 2).mean(1)


def played(unpacked: Path) -> Iterator[tuple[np.ndarray, Row]]:
    """Everything that is asked of SoundFonts (real samples, rendered here). A preset that a font lacks renders silence."""
    import tinysoundfont

    for font in table("fonts"):
        synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
        loaded = synth.sfload(str(unpacked / font["path"]))
        for concept, tag, bank, program, notes, seconds in jobs(font):
            name = f"{font['source']}-{tag}-{concept.replace(' ', '_')}"
            yield play(synth, loaded, bank, program, notes, seconds), row(font, name, f"{name}.flac", concept, "font")


def spoken() -> Iterator[tuple[np.ndarray, Row]]:
    """Every concept's name in every voice, by the espeak-ng library that a package carries.

    Its voices' flutter goes on from one name to the next: the samples are the same in every new process.
    """
    import espeakng_loader
    import soxr

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(1, 0, espeakng_loader.get_data_path().encode(), 0)  # 1: samples go to a callback
    library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # some voices' breath is noise
    heard: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def receive(samples: object, count: int, _: object) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())  # type: ignore[call-overload]
        return 0

    library.espeak_SetSynthCallback(receive)
    for concept, (number, voice) in itertools.product(CONCEPTS, enumerate(VOICES)):
        heard.clear()
        library.espeak_SetVoiceByName(voice[0].encode())
        for parameter, value in zip((1, 3), voice[1:], strict=True):  # speed, pitch
            library.espeak_SetParameter(parameter, value, 0)
        raw = article(concept).encode()
        library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, 0, 0, 1, None, None)
        library.espeak_Synchronize()
        samples = np.concatenate(heard).astype(np.float32) / 32768
        name, split = f"espeak-{concept.replace(' ', '_')}-{number}", "test" if voice == VOICES[-1] else "train"
        yield soxr.resample(samples, rate, RATE), row(ESPEAK, name, f"{name}.flac", concept, "speech", split)


def attribute(rows: Sequence[Row], path: Path) -> None:
    """Who made what the starter was trained on: a line for each source and licence, counted."""
    nothing = "nothing: cross-source test set"
    met = {("picture", "A"): "decoder and heads", ("picture", "C"): nothing, ("sound", "C"): nothing}  # or else heads
    count = Counter((r.source, r.kind, r.licence, r.tier) for r in rows)
    lines = [f"{s}\t{k}\t{licence}\t{t}\t{met.get((k, t), 'heads')}\t{n}\n" for (s, k, licence, t), n in sorted(count.items())]
    path.write_text("source\tkind\tlicence\ttier\ttrained on\titems\n" + "".join(lines))
