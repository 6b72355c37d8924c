"""Recordings out of the unpacked packages, renders of SoundFont samples, and spoken names: mono FLAC at 44.1 kHz."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unialign_gen.data.manifest import Row
from unialign_gen.encoders.aisfx import RATE

from . import fonts
from .concepts import CONCEPTS, article, unit_hash
from .plan import table

LONGEST, SHORTEST = 10.0, 0.12  # seconds
SUFFIXES = {".ogg", ".wav", ".flac", ".mp3", ".oga", ".opus"}
APART = "0ad"  # a source whose recordings are held out by themselves
VOICES = [("en-us", 165, 50), ("en-gb", 150, 40), ("en-us+f3", 160, 60), ("en-gb-scotland+m4", 140, 45)]  # name, speed, pitch


def takes(unpacked: Path) -> Iterator[tuple[Path, Row]]:
    """Every sound file that a rule of `tables/sounds.tsv` gives a concept, with its row: the first rule that matches wins."""
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
                short = hashlib.sha1(f"{source['source']}/{relative}".encode()).hexdigest()[:8]
                name = f"{source['source']}-{rule['concept'].replace(' ', '_')}-{short}"
                about = (source["source"], relative, source["licence"], source["tier"], rule["concept"], rule["kind"])
                yield path, row(f"{name}.flac", *about)


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
    """At most 45 s, mono, 44.1 kHz; nothing of what cannot be read."""
    import av

    resampler = av.AudioResampler("flt", "mono", RATE)
    parts = [np.zeros(0, np.float32)]
    try:
        with av.open(str(path)) as container:
            for frame in itertools.chain(container.decode(audio=0), [None]):
                parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
                if sum(map(len, parts)) > 45 * RATE:
                    break
    except (av.FFmpegError, IndexError):
        return parts[0]
    return np.nan_to_num(np.concatenate(parts))


def convert(out: Path, path: Path, stem: str) -> tuple[str, list[str]]:
    """One recording to FLAC files: (digest of its first second, file names)."""
    samples = trim(decode(path))
    if len(samples) < SHORTEST * RATE:
        return "", []
    digest = hashlib.sha1((samples[:RATE] / np.abs(samples).max() * 500).astype("int16").tobytes()).hexdigest()
    names = []
    for i, piece in enumerate(pieces(samples)):
        if len(piece) >= SHORTEST * RATE:
            names.append(stem + (f"-{i}" if i else "") + ".flac")
            write_flac(piece, out / names[-1])
    return digest, names


def row(name: str, source: str, key: str, licence: str, tier: str, concept: str, style: str, split: str = "") -> Row:
    """The row of a sound file; what is not said to be held out is trained on, unless it is of tier C."""
    spoken = style == "speech"
    captions = [concept, f"a voice saying {article(concept)}" if spoken else f"the sound of {article(concept)}"]
    captions += [label for label in [CONCEPTS[concept].vggsound] if label and not spoken]
    split = split or ("cross" if tier == "C" else "train")
    return Row(Path(name).stem, "sound", source, key, licence, tier, [concept], style, captions, split, f"audio/{name}")


def session(source: str, key: str) -> str:
    """What takes of one recording session have in common: their names up to the first number."""
    name = Path(key).stem
    return f"{source}:{re.sub(r'[0-9]+.*$', '', name.lower()) or name}"


def build(unpacked: Path, root: Path, jobs: int) -> list[dict[str, Any]]:
    """Rows of all sounds of the data set, with their splits.

    Files whose names differ in a number only are one recording session and stay in one split. About 15 % of each concept's
    files of tiers A and B are held out; all of tier C is the cross-source set, one of the four voices is held out.
    """
    out = root / "audio"
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    heard: set[str] = set()
    paths, found = zip(*takes(unpacked), strict=True)
    with ProcessPoolExecutor(jobs) as pool:
        converted = pool.map(functools.partial(convert, out), paths, [one.id for one in found], chunksize=8)
        for one, (digest, names) in zip(found, converted, strict=True):
            for name in names:
                if digest in heard:
                    (out / name).unlink(missing_ok=True)
                else:
                    rows.append(replace(one, id=Path(name).stem, path=f"audio/{name}"))
            heard.add(digest)
    hold_out(rows)
    for samples, name, concept, font in fonts.render_all(unpacked):
        if len(samples := trim(samples)) >= SHORTEST * RATE:
            write_flac(samples, out / name)
            rows.append(row(name, font["source"], name, font["licence"], font["tier"], concept, "font"))
    for samples, name, concept, voice in spoken():
        write_flac(trim(samples), out / name)
        split = "test" if voice == VOICES[-1] else "train"
        rows.append(row(name, "espeak-ng", name, "own synthesis", "A", concept, "speech", split))
    return [vars(row) for row in rows]


def hold_out(rows: list[Row]) -> None:
    """Marks whole recording sessions as test until about 15 % of a concept's takes are, small sessions first."""
    for concept, apart in itertools.product(CONCEPTS, (False, True)):
        mine: dict[str, list[Row]] = {}
        for one in rows:
            if one.concepts == [concept] and one.split != "cross" and (one.source == APART) == apart:
                mine.setdefault(session(one.source, one.key), []).append(one)
        total, held = sum(map(len, mine.values())), 0
        for group in sorted(mine, key=lambda g: (len(mine[g]), unit_hash("take", g))):
            fits = held + len(mine[group]) <= 0.34 * total
            if len(mine) >= 3 and held < max(1, 0.15 * total) and fits:
                held += len(mine[group])
                for one in mine[group]:
                    one.split = "test"


def spoken() -> Iterator[tuple[np.ndarray, str, str, tuple[str, int, int]]]:
    """Every concept's name in every voice, by the espeak-ng library that a package carries: samples, file, concept, voice."""
    import espeakng_loader
    import soxr

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(1, 0, espeakng_loader.get_data_path().encode(), 0)  # 1: samples go to a callback
    heard: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def receive(samples: object, count: int, _: object) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())  # type: ignore[call-overload]
        return 0

    library.espeak_SetSynthCallback(receive)
    for name, (number, voice) in itertools.product(CONCEPTS, enumerate(VOICES)):
        heard.clear()
        ctypes.CDLL(None).srand(0)  # some voices' breath is made of the C library's random numbers
        library.espeak_SetVoiceByName(voice[0].encode())
        for parameter, value in zip((1, 3), voice[1:], strict=True):  # speed, pitch
            library.espeak_SetParameter(parameter, value, 0)
        raw = article(name).encode()
        library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, 0, 0, 1, None, None)
        library.espeak_Synchronize()
        samples = np.concatenate(heard).astype(np.float32) / 32768
        yield soxr.resample(samples, rate, RATE), f"espeak-{name.replace(' ', '_')}-{number}.flac", name, voice


def attribute(rows: Sequence[Row], path: Path) -> None:
    """Who made what the starter was trained on: a line for each source and licence, counted."""

    def met(kind: str, tier: str) -> str:
        if tier == "C":
            return "nothing: cross-source test set"
        return "decoder and heads" if tier == "A" and kind == "picture" else "heads"

    count = Counter((r.source, r.kind, r.licence, r.tier) for r in rows)
    lines = [f"{s}\t{k}\t{licence}\t{t}\t{met(k, t)}\t{n}\n" for (s, k, licence, t), n in sorted(count.items())]
    path.write_text("source\tkind\tlicence\ttier\ttrained on\titems\n" + "".join(lines))
