"""Other projects' sample files through our readers, against the program ffmpeg.

    python benchmarks/media_corpora.py FOLDER ... --out report.json

Every file below the folders is read as a picture, as a sound and as a video. Each must give a result or one line, within
`SLOW` seconds. Sound is compared with ffmpeg's decode channel by channel, before anything is mixed or resampled; the first
frame of a video with the one that ffmpeg displays, turned and with square pixels.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.media import Excerpt, check_file, load_image, load_sound, load_video, opened
from unialign_gen.media.files import choose_track
from unialign_gen.media.reading import Reading
from unialign_gen.notes import collected

SLOW = 10.0
SECONDS = 30.0  # of a sound that are compared
CLOSE = 0.999
RATE = 16000


def attempt(call: Any) -> dict[str, Any]:
    """What a call gives: `ok` with its notes, `line` with what was said, or `traceback` with what should not have come."""
    begun = time.perf_counter()
    value = None
    with collected() as notes:
        try:
            value = call()
            found = {"outcome": "ok"}
        except InputError as error:
            found = {"outcome": "line" if "\n" not in str(error) else "lines", "said": str(error)}
        except Exception as error:
            found = {"outcome": "traceback", "said": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": time.perf_counter() - begun, "notes": [n.kind for n in notes], "value": value}


def ours(path: Path) -> tuple[int, int, np.ndarray]:
    """(track, rate, samples (channels, n)) as they are decoded; of a sound whose form changes, the first part."""
    with opened(path) as container:
        stream = choose_track(container, "audio", str(path))
        assert stream is not None
        track = [s.index for s in container.streams.audio].index(stream.index)
        form, pieces, got = None, [], 0
        for samples, rate in Reading(container, [stream], None, str(path), Excerpt(path)).heard(stream, None):
            form = form or (len(samples), rate)
            if (len(samples), rate) != form or got > SECONDS * rate:
                break
            pieces.append(samples)
            got += samples.shape[1]
    assert form is not None
    return track, form[1], np.concatenate(pieces, 1)


def theirs(path: Path, track: int, channels: int) -> np.ndarray:
    """The same by the program ffmpeg."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", f"file:{path}", "-map", f"0:a:{track}", "-t", str(SECONDS)]
    raw = subprocess.run([*command, "-f", "f32le", "-c:a", "pcm_f32le", "-"], capture_output=True, timeout=120).stdout
    return np.frombuffer(raw[: len(raw) // (4 * channels) * 4 * channels], np.float32).reshape(-1, channels).T


def sound_agrees(path: Path) -> float | str:
    """The least correlation of a channel with ffmpeg's; what is amiss where they cannot be compared."""
    track, rate, mine = ours(path)
    other = theirs(path, track, len(mine))
    if not other.size:
        return "ffmpeg gives nothing"
    count = min(mine.shape[1], other.shape[1], int(SECONDS * rate))
    if abs(min(mine.shape[1], SECONDS * rate) - min(other.shape[1], SECONDS * rate)) > 0.1 * rate:
        return f"{mine.shape[1] / rate:.2f} s here, {other.shape[1] / rate:.2f} s there"
    least = 1.0
    for a, b in zip(mine[:, :count], other[:, :count], strict=True):
        if max(np.ptp(a), np.ptp(b)) < 1e-3 and np.abs(a - b).max() < 1e-3:  # silence or a constant has no correlation
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            least = min(least, float(np.nan_to_num(np.corrcoef(a, b)[0, 1])))
    return least


def frame_agrees(path: Path) -> float | str:
    """Mean absolute difference of the first frame's pixels, 0 to 255; what is amiss where sizes differ."""
    (mine,) = load_video(Excerpt(path, 0.0, 1e-3), 1).frames
    with opened(path) as container:
        stream = choose_track(container, "video", str(path))
        assert stream is not None
        track = [s.index for s in container.streams.video].index(stream.index)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", f"file:{path}", "-map", f"0:v:{track}", "-frames:v", "1"]
    shape = ["-vf", "scale=iw*sar:ih,setsar=1", "-f", "image2pipe", "-c:v", "png", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run([*command, *shape], capture_output=True, timeout=120).stdout
    if not raw:
        return "ffmpeg gives nothing"
    other = Image.open(io.BytesIO(raw)).convert("RGB")
    if max(abs(mine.width - other.width), abs(mine.height - other.height)) > 2:
        return f"{mine.size} here, {other.size} there"
    small = (64, 64)
    a, b = (np.asarray(p.resize(small, Image.Resampling.BOX), float) for p in (mine, other))
    return float(np.abs(a - b).mean())


def check(path: Path) -> dict[str, Any]:
    """Everything about one file."""
    row: dict[str, Any] = {"file": str(path)}
    row["image"] = attempt(lambda: load_image(path))
    row["audio"] = attempt(lambda: load_sound(path, RATE))
    row["video"] = attempt(lambda: load_video(path, 4, RATE))
    if row["audio"]["outcome"] == "ok":
        row["sound"] = attempt(lambda: sound_agrees(path))["value"]
        peak = float(row["audio"]["value"].abs().max())
        row["peak"] = peak if np.isfinite(peak) else "not finite"
    if row["video"]["outcome"] == "ok" and row["image"]["outcome"] != "ok":
        row["frame"] = attempt(lambda: frame_agrees(path))["value"]
    for kind in ("image", "audio", "video"):
        del row[kind]["value"]
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = ("image", "audio", "video")
    return {
        "files": len(rows),
        **{kind: dict(Counter(r[kind]["outcome"] for r in rows)) for kind in kinds},
        "notes": dict(Counter(n for r in rows for kind in kinds for n in r[kind]["notes"])),
        "slowest": sorted(((round(r[k]["seconds"], 2), k, r["file"]) for r in rows for k in kinds), reverse=True)[:5],
        "tracebacks": [(r["file"], k, r[k]["said"]) for r in rows for k in kinds if r[k]["outcome"] in ("traceback", "lines")],
        "sounds that agree": sum(isinstance(r.get("sound"), float) and r["sound"] > CLOSE for r in rows),
        "sounds that do not": [
            (r["file"], r["sound"]) for r in rows if "sound" in r and not (isinstance(r["sound"], float) and r["sound"] > CLOSE)
        ],
        "frames that agree": sum(isinstance(r.get("frame"), float) and r["frame"] < 4 for r in rows),
        "frames that do not": [
            (r["file"], r["frame"]) for r in rows if "frame" in r and not (isinstance(r["frame"], float) and r["frame"] < 4)
        ],
        "peaks beyond 1": [r["file"] for r in rows if isinstance(r.get("peak"), str) or r.get("peak", 0) > 1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file: the summary and every file's row")
    asked = parser.parse_args()
    files = sorted(p for folder in asked.folders for p in folder.rglob("*") if p.is_file())
    rows = []
    for path in files:
        faulthandler.dump_traceback_later(20 * SLOW, exit=True)  # a hang in C is shown, and ends the run
        with suppress(InputError):
            check_file(path)
            rows.append(check(path))
    faulthandler.cancel_dump_traceback_later()
    found = summary(rows)
    asked.out.write_text(json.dumps({"summary": found, "files": rows}, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    bad = found["tracebacks"] or found["peaks beyond 1"] or found["slowest"][0][0] > SLOW
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
