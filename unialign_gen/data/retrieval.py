"""Corpora that text-to-video and text-to-sound retrieval is measured on.

MSR-VTT (Xu et al. 2016), DiDeMo (Hendricks et al. 2017) and ActivityNet (Krishna et al. 2017) in the annotation layout of
the published retrieval code: a JSON list of `{video_id, desc}`, where `desc` is a caption or a list of them. As published:
VATEX (Wang et al. 2019), a JSON list of `{videoID, enCap}`; AudioCaps (Kim et al. 2019), a CSV with `audiocap_id, youtube_id,
start_time, caption`, several rows a clip; Clotho (Drossos et al. 2020), a CSV with `file_name, caption_1 ... caption_5`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, as_input_error
from .captions import rows, texts
from .corpus import Corpus, Missing, Sample
from .files import MediaFolder, clip_names, without_suffix
from .storage import place, reached

# what a row of JSON calls a clip and its captions
KEYS = {**dict.fromkeys(("msrvtt", "didemo", "activitynet"), ("video_id", "desc")), "vatex": ("videoID", "enCap")}
NAMES = (*KEYS, "audiocaps", "clotho")
Row = tuple[str, list[str], tuple[str, ...]]  # id, names that its file may have, captions


def read(name: str, annotations: str | Path, root: str | Path) -> Corpus:
    """The clips of a corpus with all their captions, in the order of the annotations.

    Args:
        name: `msrvtt`, `didemo`, `activitynet`, `vatex`, `audiocaps` or `clotho`.
        annotations: the file of captions.
        root: a folder, at any depth below which the media files lie.

    Raises:
        InputError: the corpus is unknown, a folder or file is not there, or a row is not of the published form.
    """
    if name not in NAMES:
        raise InputError(f"unknown retrieval corpus {name!r}: choose from {', '.join(NAMES)}")
    path = place(annotations)
    folder = MediaFolder(root)
    captions: dict[str, tuple[str, ...]] = {}
    names: dict[str, list[str]] = {}
    listed = videos(path, *KEYS[name]) if name in KEYS else audiocaps(path) if name == "audiocaps" else clotho(path)
    for clip, found, text in listed:
        captions[clip] = captions.get(clip, ()) + text
        names.setdefault(clip, []).extend(found)
    clips = []
    for clip, text in captions.items():
        video, audio = folder.find(names[clip])
        reason = folder.reason(names[clip]) if audio is None else "no caption"
        clips.append(Sample(clip, text, audio, video) if audio and text else Sample(clip, absent={"video": reason}))
    return Corpus.of(name, clips)


def videos(path: Path, clip: str, captions: str) -> Iterator[Row]:
    """Each row of a JSON list, whose keys `clip` and `captions` are."""
    try:
        with reached(path):
            text = path.read_bytes()
        listed = json.loads(text)
    except InputError as error:
        raise InputError(f"no annotations at {path}: {error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(listed, list):
        raise InputError(f"{path}: expected a list of rows with {clip} and {captions}")
    for number, row in enumerate(listed, 1):
        if not isinstance(row, dict) or not isinstance(row.get(clip), str) or captions not in row:
            raise InputError(f"{path}, row {number}: expected {clip} and {captions}")
        name = row[clip]
        part = re.fullmatch(r"(.+)_(\d{6})_\d{6}", name)  # VATEX: a clip of YouTube, from second to second
        names = [name, without_suffix(name), *(clip_names(part[1], float(part[2])) if part else ())]
        yield name, names, texts(row[captions], f"{path}, row {number}")


def audiocaps(path: Path) -> Iterator[Row]:
    """Each row of AudioCaps' CSV."""
    for number, row in rows(path):
        with as_input_error(
            f"{path}, line {number}: expected audiocap_id, youtube_id, start_time, caption", KeyError, ValueError
        ):
            start = float(row["start_time"])
            youtube, number_of_row, caption = row["youtube_id"], row["audiocap_id"], row["caption"]
        yield (
            f"{youtube}_{int(start):06d}",
            [*clip_names(youtube, start), number_of_row],
            texts(caption, f"{path}, line {number}"),
        )


def clotho(path: Path) -> Iterator[Row]:
    """Each row of Clotho's CSV."""
    for number, row in rows(path):
        captions = [row[key] for key in sorted(row) if re.fullmatch(r"caption_\d+", key)]
        if not captions or not row.get("file_name"):
            raise InputError(f"{path}, line {number}: expected file_name and caption_1 to caption_5")
        yield row["file_name"], [without_suffix(row["file_name"])], texts(captions, f"{path}, line {number}")


def with_sound(corpus: Corpus) -> Corpus:
    """The samples whose sound file, or video, has a sound track, such as 884 of MSR-VTT's 1000: each file is opened.

    The others are missing; a file that cannot be opened is too.
    """
    from ..media import has_sound

    samples: list[Sample] = []
    missing = list(corpus.missing)
    for sample in corpus.samples:
        try:
            if sample.audio is not None and has_sound(sample.audio):
                samples.append(sample)
            else:
                missing.append(Missing(sample.id, "has no sound"))
        except InputError as error:
            missing.append(Missing(sample.id, str(error)))
    return Corpus(f"{corpus.name}, with sound", samples, missing)
