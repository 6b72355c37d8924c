"""WebDataset tars: the files of a sample follow each other and share their name up to its first dot.

`clip7.mp4` is a video, `clip7.flac` a sound, `clip7.jpg` a picture, `clip7.txt` a caption, `clip7.cls` a label; `clip7.json`
may have `caption`, `captions` or `text`, and `label`. Any other suffix holds files of a modality of that name. A tar is listed
once and the listing kept beside the copies of what lies in stores; a clip is then read by its place in the tar.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, as_input_error
from ..output import make_folder
from .captions import texts
from .corpus import Corpus, Sample
from .files import AUDIO, VIDEO
from .storage import File, Stored, copies, expanded, made_once, on_disk, place, reached, read_url, write_whole

IMAGE = frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp", "ppm", "tif", "tiff", "avif", "heic"])
TEXT = frozenset(["txt", "text", "caption"])
LISTERS = 16  # tars that are listed at a time
BLOCK = 2**18  # bytes that a look into a tar in a store asks for


def read(pattern: str) -> Corpus:
    """The samples of tars, in their order.

    Args:
        pattern: `DIR/{0000..0099}.tar`, `DIR/*.tar`, or a folder of tars, on the disk or in a store.

    Raises:
        InputError: there is no such tar, one is damaged or compressed, or two samples have the same name.
    """
    tars = expanded(pattern)
    if not tars:
        raise InputError(f"no tars at {pattern}")
    samples: list[Sample] = []
    seen: dict[str, str] = {}
    with ThreadPoolExecutor(LISTERS, "list") as pool:
        for tar, entries in zip(tars, pool.map(listing, tars), strict=True):
            for name, files in entries:
                if name in seen:
                    raise InputError(f"{tar}: sample {name!r} is in {seen[name]} too")
                seen[name] = tar
                samples.append(parse(tar, name, files))
    return Corpus.of(f"webdataset {Path(pattern).name}", samples)


def listing(tar: str) -> list[tuple[str, dict[str, Any]]]:
    """Of each sample its name and, by suffix, the first and last byte of its files, or what is in its small ones."""
    path: Any = place(tar)
    folder = make_folder(copies() / "listings")
    with reached(tar):
        about = path.stat()
        key = f"{tar if not on_disk(path) else path.resolve()} {about.st_size} {about.st_mtime}"
        kept = folder / hashlib.sha256(key.encode()).hexdigest()[:32]
        made_once(kept, lambda part: write_whole(part, json.dumps(members(tar, path)).encode()))
    return json.loads(kept.read_bytes())


def members(tar: str, path: Any) -> list[tuple[str, dict[str, Any]]]:
    options = {} if on_disk(path) else {"block_size": BLOCK, "cache_type": "readahead"}
    found: list[tuple[str, dict[str, Any]]] = []
    with (
        as_input_error(f"{tar} is not a tar that can be read by place (damaged or compressed): {{error}}", tarfile.TarError),
        path.open("rb", **options) as f,
        tarfile.open(fileobj=f, mode="r:") as opened,
    ):
        for member in opened:
            folder, _, base = member.name.rpartition("/")
            stem, dot, suffix = base.partition(".")
            if not (member.isfile() and stem and dot):
                continue
            name, suffix = f"{folder}/{stem}".lstrip("/"), suffix.lower()
            if not found or found[-1][0] != name:
                found.append((name, {}))
            if suffix in (*TEXT, "cls", "json"):
                data = opened.extractfile(member)
                found[-1][1][suffix] = data.read().decode("utf-8", "replace") if data else ""
            else:
                found[-1][1][suffix] = [member.offset_data, member.offset_data + member.size]
    return found


def parse(tar: str, name: str, files: dict[str, Any]) -> Sample:
    where = f"{tar}: {name}"
    with as_input_error(f"{where}.json is not JSON: {{error}}", ValueError):
        about = json.loads(files.get("json", "{}"))
    about = about if isinstance(about, dict) else {}
    written = [files[suffix] for suffix in files if suffix in TEXT]
    text = next((about[key] for key in ("captions", "caption", "text") if about.get(key)), written)
    label = files.get("cls", about.get("label"))
    found: dict[str, File] = {}
    for suffix, span in files.items():
        if not isinstance(span, list):
            continue
        kind = "video" if suffix in VIDEO else "audio" if suffix in AUDIO else "image" if suffix in IMAGE else suffix
        found.setdefault(kind, Stored(f"{tar}/{name}.{suffix}", partial(read_url, tar, *span)))
    audio, video = found.pop("audio", found.get("video")), found.pop("video", None)
    label = None if label is None else str(label).strip()
    return Sample(name, texts(text, where), audio, video, found.pop("image", None), label, found)
