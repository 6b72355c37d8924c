"""Recordings out of the unpacked packages, and renders of SoundFont samples and spoken names: mono FLAC at 44.1 kHz."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unialign_gen.encoders.aisfx import RATE
from unialign_gen.errors import InputError

from . import fonts, speech
from .concepts import CONCEPTS, article, table
from .manifest import Row
from .splits import unit_hash

LONGEST, SHORTEST = 10.0, 0.12
SUFFIXES = {".ogg", ".wav", ".flac", ".mp3", ".oga", ".opus"}
OPTIONAL = {"0ad"}  # sources that `data --large` adds


@dataclass
class Take:
    """A file of a package that a rule gave a concept."""

    source: str
    path: str
    relative: str
    concept: str
    kind: str
    licence: str
    tier: str


def takes(unpacked: Path) -> Iterator[Take]:
    """Every sound file that a rule of `tables/sounds.tsv` names, once: the first rule that matches wins."""
    rules = table("sounds")
    for source in table("sound_sources"):
        mine = [(re.compile(r["pattern"], re.I), r) for r in rules if r["source"] == source["source"]]
        root = unpacked / source["folder"]
        for path in sorted(root.rglob("*")):
            relative = str(path.relative_to(root))
            # the stamps' spoken descriptions lie beside their sounds
            if path.suffix.lower() not in SUFFIXES or "_desc" in relative:
                continue
            name = path.name if source["source"] == "opensfx" else "/" + relative
            rule = next((r for pattern, r in mine if pattern.search(name)), None)
            if rule:
                yield Take(
                    source["source"], str(path), relative, rule["concept"], rule["kind"], source["licence"], source["tier"]
                )


def trim(samples: np.ndarray) -> np.ndarray:
    """Cuts what is 46 dB below the peak off both ends."""
    if not len(samples) or np.abs(samples).max() < 1e-4:
        return samples[:0]
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() * 10 ** (-46 / 20))
    return samples[max(0, loud[0] - RATE // 100) : loud[-1] + RATE // 20]


def pieces(samples: np.ndarray) -> list[np.ndarray]:
    """The whole of a short recording, at most three stretches of 10 s of a long one."""
    longest = int(LONGEST * RATE)
    if len(samples) <= 1.3 * longest:
        return [samples[:longest]]
    count = min(3, len(samples) // longest)
    return [samples[i * (len(samples) // count) :][:longest] for i in range(count)]


def write_flac(samples: np.ndarray, path: Path) -> float:
    """Writes 16 bit mono at a common loudness; returns seconds."""
    import soundfile

    samples = samples - samples.mean()
    gain = min(0.9 / max(np.abs(samples).max(), 1e-6), 0.08 / max(float(np.sqrt((samples**2).mean())), 1e-5))
    samples = samples * gain
    fade = min(RATE // 200, len(samples) // 4)
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return round(len(samples) / RATE, 2)


def decode(path: str) -> np.ndarray:
    """At most 45 s, mono, 44.1 kHz."""
    import av

    resampler = av.AudioResampler("flt", "mono", RATE)
    parts: list[np.ndarray] = []
    try:
        with av.open(path) as container:
            for frame in container.decode(audio=0):
                parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
                if sum(map(len, parts)) > 45 * RATE:
                    break
            else:
                parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(None)]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path}: {error}") from error
    return np.nan_to_num(np.concatenate(parts)) if parts else np.zeros(0, np.float32)


def convert(job: tuple[Take, Path]) -> tuple[Take, str, list[tuple[str, float]]]:
    """One take to FLAC files: (take, digest of its first second, [(name, seconds)])."""
    take, out = job
    try:
        samples = trim(decode(take.path))
    except InputError:
        return take, "", []
    if len(samples) < SHORTEST * RATE:
        return take, "", []
    digest = hashlib.sha1((samples[:RATE] / np.abs(samples).max() * 500).astype("int16").tobytes()).hexdigest()
    short = hashlib.sha1(f"{take.source}/{take.relative}".encode()).hexdigest()[:8]
    stem = f"{take.source}-{take.concept.replace(' ', '_')}-{short}"
    written = []
    for i, piece in enumerate(pieces(samples)):
        if len(piece) >= SHORTEST * RATE:
            name = stem + (f"-{i}" if i else "") + ".flac"
            written.append((name, write_flac(piece, out / name)))
    return take, digest, written


def captions(concept: str, kind: str) -> list[str]:
    if kind == "speech":
        return [concept, f"a voice saying {article(concept)}"]
    label = CONCEPTS[concept].vggsound
    return [concept, f"the sound of {article(concept)}", *([label] if label else [])]


def session(source: str, key: str) -> str:
    """What takes of one recording session have in common: their names up to the first number."""
    name = Path(key).stem
    return f"{source}:{re.sub(r'[0-9]+.*$', '', name.lower()) or name}"


def build(unpacked: Path, root: Path, jobs: int) -> list[Row]:
    """All sounds of the data set, with their splits.

    A take is a file of a package; takes whose names differ in a number only are one recording session and stay in one
    split. About 15 % of each concept's takes of tiers A and B are held out, whether the optional sources are there or not; all
    of tier C is the cross-source set, one of the four voices is held out.
    """
    out = root / "audio"
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    groups: dict[str, str] = {}
    heard: set[str] = set()
    with ProcessPoolExecutor(jobs) as pool:
        work = [(take, out) for take in takes(unpacked)]
        for take, digest, written in pool.map(convert, work, chunksize=8):
            if not written or digest in heard:
                for name, _ in written:
                    (out / name).unlink(missing_ok=True)
                continue
            heard.add(digest)
            for name, seconds in written:
                row = Row(
                    id=Path(name).stem,
                    kind="sound",
                    source=take.source,
                    key=take.relative,
                    licence=take.licence,
                    tier=take.tier,
                    concepts=[take.concept],
                    style=take.kind,
                    captions=captions(take.concept, take.kind),
                    split="cross" if take.tier == "C" else "train",
                    path=f"audio/{name}",
                    seconds=seconds,
                )
                groups[row.id] = session(take.source, take.relative)
                rows.append(row)
    hold_out(rows, groups)
    for name, concept, font in fonts.render_all(unpacked, out, write_flac, trim):
        rows.append(
            Row(
                id=Path(name).stem,
                kind="sound",
                source=font.source,
                key=name,
                licence=font.licence,
                tier=font.tier,
                concepts=[concept],
                style="font",
                captions=captions(concept, "font"),
                split="cross" if font.tier == "C" else "train",
                path=f"audio/{name}",
            )
        )
    for name, concept, voice in speech.speak_all(list(CONCEPTS), out, write_flac, trim):
        rows.append(
            Row(
                id=Path(name).stem,
                kind="sound",
                source="espeak-ng",
                key=name,
                licence="own synthesis",
                tier="A",
                concepts=[concept],
                style="speech",
                captions=captions(concept, "speech"),
                split="test" if voice == len(speech.VOICES) - 1 else "train",
                path=f"audio/{name}",
            )
        )
    return rows


def hold_out(rows: list[Row], groups: dict[str, str]) -> None:
    """Marks whole recording sessions as test until about 15 % of a concept's takes are, small sessions first.

    Optional sources are counted apart: with them no other take changes sides.
    """
    for concept, optional in itertools.product(CONCEPTS, (False, True)):
        mine: dict[str, list[Row]] = {}
        for row in rows:
            if row.concepts == [concept] and row.split != "cross" and (row.source in OPTIONAL) == optional:
                mine.setdefault(groups[row.id], []).append(row)
        total, held = sum(map(len, mine.values())), 0
        for group in sorted(mine, key=lambda g: (len(mine[g]), unit_hash("take", g))):
            fits = held + len(mine[group]) <= 0.34 * total
            if len(mine) >= 3 and held < max(1, 0.15 * total) and fits:
                held += len(mine[group])
                for row in mine[group]:
                    row.split = "test"
