"""Mutated media and prompts through the API: each gives a result or one line, within `SLOW` seconds, and memory stays flat.

python benchmarks/media_mutations.py --count 10000 --out mutations.json
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import unialign_gen
from unialign_gen.errors import InputError
from unialign_gen.media import load_image, load_sound, load_video
from unialign_gen.media.settings import read_settings
from unialign_gen.notes import collected

SLOW = 10.0
RATE = 16000
MEDIA = Path(__file__).parent.parent / "tests" / "media"
ALPHABETS = (
    "abcdefgh ",
    "\u732b\u72ac\U0001f431",
    "\u200b\u200d\ufeff\u00ad\u202e",
    "\0\x07\n\t",
    "\ud83d\udc31",
    "\u0301\u0338",
    "0.5,;:<>&",
)


def mutated(raw: bytes, dice: random.Random) -> bytes:
    """A file with bytes changed, blocks moved, doubled or taken out, or its end cut off."""
    data = bytearray(raw)
    way = dice.randrange(5)
    if way == 0:
        for _ in range(dice.choice((1, 10, 300))):
            data[dice.randrange(min(len(data), dice.choice((64, 1000, len(data)))))] = dice.randrange(256)
    elif way == 1:
        del data[dice.randrange(len(data)) :]
    elif way == 2:
        at, size = dice.randrange(len(data)), dice.randrange(1, 1 + len(data) // 4)
        del data[at : at + size]
    elif way == 3:
        at, size, to = dice.randrange(len(data)), dice.randrange(1, 1 + len(data) // 4), dice.randrange(len(data))
        data[to:to] = data[at : at + size]
    else:
        at = dice.randrange(len(data))
        data[at : at + dice.choice((4, 8, 200))] = bytes(dice.choice((0, 255)) for _ in range(dice.choice((4, 8, 200))))
    return bytes(data)


def array(dice: random.Random) -> Any:
    """Samples or pixels of an odd shape and type, with odd values."""
    shape = tuple(dice.choice((0, 1, 2, 3, 4, 7, 300)) for _ in range(dice.randrange(1, 4)))
    values = np.random.default_rng(dice.randrange(2**32)).normal(0, dice.choice((0.1, 1, 300)), shape)
    found = values.astype(dice.choice((np.float16, np.float32, np.float64, np.int16, np.int32, np.uint8, np.int64)))
    if found.dtype.kind == "f" and found.size and dice.random() < 0.3:
        found.flat[dice.randrange(found.size)] = dice.choice((np.nan, np.inf, -np.inf))
    return found


def text(dice: random.Random) -> str:
    parts = [
        "".join(dice.choices(dice.choice(ALPHABETS), k=dice.choice((0, 1, 3, 20, 400)))) for _ in range(dice.randrange(1, 4))
    ]
    return unicodedata.normalize(dice.choice(("NFC", "NFD")), "".join(parts))


def cases(seed: int, encode: Any) -> Any:
    """Calls without end, each with a name."""
    dice = random.Random(seed)
    files = {p: p.read_bytes() for p in sorted(MEDIA.iterdir()) if p.stat().st_size}
    loaders = {"image": load_image, "audio": lambda s: load_sound(s, RATE), "video": lambda s: load_video(s, 2, RATE)}
    while True:
        kind = dice.choice(("file", "file", "file", "array", "text", "settings"))
        if kind == "text":
            words = text(dice)
            yield "text", lambda words=words: encode(words)
        elif kind == "array":
            name, value = dice.choice(list(loaders)), array(dice)
            source = (dice.choice((RATE, 0, 44100.0, -1, "x")), value) if name == "audio" else value
            yield f"array as {name}", lambda name=name, source=source: loaders[name](source)
        else:
            path = dice.choice(list(files))
            raw, name = mutated(files[path], dice), dice.choice(list(loaders))
            if not raw:
                continue
            if kind == "settings":
                yield f"settings of {path.suffix}", lambda raw=raw: read_settings(raw)
            else:
                yield f"{path.suffix} as {name}", lambda name=name, raw=raw: loaders[name](raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    pipeline = unialign_gen.load("starter")
    outcomes: Counter[str] = Counter()
    bad: list[Any] = []
    slowest = 0.0
    memory: list[int] = []
    calls = cases(asked.seed, lambda words: pipeline.embed(text=words))
    for number in range(asked.count):
        name, call = next(calls)
        faulthandler.dump_traceback_later(6 * SLOW, exit=True)
        begun = time.perf_counter()
        with collected():
            try:
                call()
                outcome = "ok"
            except InputError as error:
                outcome = "line"
                if "\n" in str(error):
                    bad.append((number, name, "several lines", str(error)))
            except Exception as error:
                outcome = "traceback"
                bad.append((number, name, type(error).__name__, str(error)[:300]))
        slowest = max(slowest, time.perf_counter() - begun)
        outcomes[f"{name}: {outcome}"] += 1
        if number % 1000 == 999:
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20)
            sys.stderr.write(f"{number + 1}: {memory[-1]} MiB, slowest {slowest:.1f} s, {len(bad)} bad\n")
    faulthandler.cancel_dump_traceback_later()
    totals = Counter()
    for name, count in outcomes.items():
        totals[name.rpartition(": ")[2]] += count
    found = {"count": asked.count, "totals": totals, "slowest": slowest, "MiB after each thousand": memory, "bad": bad}
    asked.out.write_text(json.dumps({**found, "outcomes": outcomes}, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    raise SystemExit(1 if bad or slowest > SLOW else 0)


if __name__ == "__main__":
    main()
