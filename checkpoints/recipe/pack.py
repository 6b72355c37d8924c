"""Everything that training a decoder needs, in one file that is small enough to carry to another machine.

A safetensors file: pictures as AVIF strips of 64 of them (a third of what they take without loss, at 38 dB), embeddings and
movq in fp16, and as JSON what each picture shows.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import VQModel
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from unialign_gen.errors import InputError, as_input_error
from unialign_gen.output import written

from . import rows

SIDE, STRIP = 64, 64  # pixels of a picture; pictures in a strip, one below the other
MOST = 55 * 10**6  # bytes
AUTOENCODER = "movq."


@dataclass
class Pack:
    """What a pack holds.

    Of each picture `rows` has `thing`, what it shows whatever its colour; `group`, the same for pictures that may stand for
    each other; `kind`, plain, recoloured or composition; `concept`, whether it shows one of the table; and `captions`.
    """

    pictures: Tensor  # uint8 (N, 64, 64, 3), as they came out of the pack
    embeddings: Tensor  # unit vectors (N, d), fp32
    rows: list[dict[str, Any]]
    movq: VQModel  # the autoencoder whose latents are drawn
    space: str  # a digest of the head that made the embeddings


def write(root: Path, file: Path, quality: int = 70) -> int:
    """Packs the decoders' training pictures, of tier A, with their embeddings and movq; returns the file's size in bytes.

    Two compositions may stand for each other if they have one caption, other pictures if they show one thing in one colour.

    Args:
        root: the data folder: `pictures64.npy`, `rows.jsonl`, `embeddings.npy`, `space`, `autoencoder/movq`.
        quality: AVIF's, 0 to 100.

    Raises:
        InputError: a part is missing, or the pack would have more than 55 MB.
    """
    for name in ("pictures64.npy", "embeddings.npy", "space/head.safetensors", "autoencoder/movq"):
        if not (root / name).exists():
            raise InputError(f"{root / name} is not there: run the recipe's stages before this one")
    every = rows.read(root)
    name_of = {row.id: row.name for row in every}
    chosen, shown = [n for n, row in enumerate(every) if row.tier == "A" and row.split == "train"], []
    for row in (every[n] for n in chosen):
        thing = row.said[0].lower() if row.kind == "composition" else name_of[row.variant_of or row.id]
        about = {"thing": thing, "group": f"{thing}|{row.colour}", "kind": row.kind, "concept": bool(row.concepts)}
        shown.append(about | {"captions": row.said})
    pictures, embeddings = (np.load(root / f"{name}.npy", mmap_mode="r")[chosen] for name in ("pictures64", "embeddings"))
    movq = VQModel.from_pretrained(root / "autoencoder" / "movq")
    blobs = []
    for at in range(0, len(pictures), STRIP):
        strip, out = Image.fromarray(pictures[at : at + STRIP].reshape(-1, SIDE, 3)), io.BytesIO()
        strip.save(out, "AVIF", quality=quality, subsampling="4:4:4", speed=8, max_threads=1)
        blobs.append(out.getvalue())
    arrays = {
        "strips": np.frombuffer(b"".join(blobs), np.uint8),
        "ends": np.cumsum([len(b) for b in blobs]),
        "embeddings": embeddings.astype(np.float16),
        "rows": np.frombuffer(zlib.compress(json.dumps(shown).encode(), 9), np.uint8),
        **{AUTOENCODER + name: value.numpy().astype(np.float16) for name, value in movq.state_dict().items()},
    }
    size = sum(a.nbytes for a in arrays.values())
    if size > MOST:
        raise InputError(f"the pack has {size / 1e6:.0f} MB, more than 55: choose a quality lower than {quality}")
    config = {k: v for k, v in movq.config.items() if k != "_name_or_path"}
    space = hashlib.sha256((root / "space" / "head.safetensors").read_bytes()).hexdigest()
    with written(file) as part:
        save_file(arrays, part, {"movq": json.dumps(config), "space": space})
    return file.stat().st_size


def read(file: Path) -> Pack:
    """What `write` wrote.

    Raises:
        InputError: the file is no pack.
    """
    kinds = (OSError, KeyError, ValueError, TypeError, RuntimeError, zlib.error, SafetensorError)
    with as_input_error(f"{file} is not a pack that can be read: make one with `pack` ({{error}})", *kinds):
        with safe_open(file, framework="pt") as opened:
            config, space = json.loads(opened.metadata()["movq"]), opened.metadata()["space"]
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  not a dictionary
        shown = json.loads(zlib.decompress(found["rows"].numpy().tobytes()))
        movq = VQModel.from_config(config)
        movq.load_state_dict({k.removeprefix(AUTOENCODER): v.float() for k, v in found.items() if k.startswith(AUTOENCODER)})
        data, ends = found["strips"].numpy(), [0, *found["ends"].tolist()]
        strips = (Image.open(io.BytesIO(data[a:b].tobytes())) for a, b in itertools.pairwise(ends))
        pictures = np.concatenate([np.asarray(strip.convert("RGB")) for strip in strips]).reshape(-1, SIDE, SIDE, 3)
        embeddings = torch.nn.functional.normalize(found["embeddings"].float(), dim=1)
    return Pack(torch.from_numpy(pictures), embeddings, shown, movq.eval(), space)
