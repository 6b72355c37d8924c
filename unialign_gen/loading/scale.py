"""The scale that a decoder wants, measured: the mean norm of raw image embeddings, and where pictures lie beside texts.

Contrastive training gives unit vectors, decoders were trained on raw ones, and the norms that ViT-H and bigG give are published
nowhere: they are measured here, once, with the encoder itself, over 64 pictures that come with the package or over one's own.
The same pictures and their captions give the mean shift from text to image, the gap between the modalities (Liang et al. 2022).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError
from ..heads.bridge import SHIFT
from ..media import load_image
from ..notes import note
from ..output import write_tensors
from . import description
from .aligners import described_aligner
from .folders import shipped_folder

if TYPE_CHECKING:
    from ..aligner import Part


@dataclass
class Calibration:
    """What was measured.

    Attributes:
        embed_norm: mean of the norms; embed_norm_std: their standard deviation.
        count: how many pictures; skipped: those that could not be read, with the reason.
        negative: the decoder's unconditional embedding (1, d): zeros, or that of a picture whose normalised pixels are all
            zero, at its own norm.
        shift: mean unit image embedding less mean unit text embedding (d,), where captions were read too.
    """

    embed_norm: float
    embed_norm_std: float
    count: int
    skipped: list[str]
    negative: Tensor
    shift: Tensor | None = None

    def save(self, folder: Path) -> None:
        """Writes it as the `EmbedScale` of a decoder, and the shift beside it."""
        from ..pipelines import EmbedScale

        scale = EmbedScale(self.negative.shape[1], self.embed_norm, self.embed_norm_std)
        scale.negative_image_embeds.copy_(self.negative)
        scale.save_pretrained(folder)
        (folder / SHIFT).unlink(missing_ok=True)
        if self.shift is not None:
            write_tensors(folder / SHIFT, {"text_to_image": self.shift})


def pictures_in(folder: Path) -> list[Path]:
    """The files under a folder, in order of their names; what is no picture is found when it is opened.

    Raises:
        InputError: there are none.
    """
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not found:
        raise InputError(f"no pictures in {folder}: give a folder with pictures")
    return found


def shipped_pictures() -> dict[Path, str]:
    """The 64 pictures that come with the package, with a caption each.

    >>> len(shipped_pictures())
    64
    """
    folder = shipped_folder() / "samples" / "pictures"
    with (folder / "ATTRIBUTION.tsv").open(encoding="utf-8", newline="") as file:
        return {folder / row["file"]: row["caption"] for row in csv.DictReader(file, delimiter="\t")}


@torch.no_grad()
def measure(
    part: Part, files: Sequence[Path], batch: int = 16, zero_unconditional: bool = False, texts: Part | None = None,
    captions: Sequence[str] = (),
) -> Calibration:  # fmt: skip
    """Norms of the raw embeddings of pictures.

    Args:
        part: an image encoder whose output is the decoder's image embedding, without a trained head.
        files: pictures; those that cannot be read are skipped and named.
        zero_unconditional: the decoder takes zeros for no prompt, see `unconditional_is_zero`.
        texts, captions: a text encoder into the same space and captions of the pictures, for the shift.

    Raises:
        InputError: the part has a head, fewer than two pictures can be read, or a norm is not a positive number.
    """
    from tqdm import tqdm

    if not isinstance(part.head, nn.Identity):
        raise InputError("this checkpoint's decoder was trained on unit vectors times a fixed norm: nothing to calibrate")
    encoder, skipped = part.encoder, []
    place = next(encoder.parameters())

    def readable(some: Sequence[Path]) -> Iterator[Image.Image]:
        for file in some:
            try:
                yield load_image(file)
            except InputError as error:
                skipped.append(str(error))

    found: list[Tensor] = []
    for at in tqdm(range(0, len(files), batch), desc="pictures", unit="batch", disable=None):
        if pictures := list(readable(files[at : at + batch])):
            prepared = encoder.prepare(pictures).to(place)
            found.append(encoder(prepared).double().cpu())  # (batch, d)
    raw = torch.cat(found) if found else torch.zeros(0, 1)
    norms = raw.norm(dim=1)
    if len(norms) < 2:
        raise InputError(f"{len(norms)} of {len(files)} pictures could be read: calibration needs at least 2")
    if not bool((norms > 0).all() & norms.isfinite().all()):
        raise InputError("the image encoder gives embeddings that are zero or not finite: its weights are damaged")
    grey = encoder(torch.zeros_like(prepared[:1])).float().cpu()  # (1, d)
    negative = torch.zeros_like(grey) if zero_unconditional else grey
    shift = None
    if texts is not None and captions:
        tokens = texts.encoder.prepare(list(captions)).to(place.device)
        shift = F.normalize(raw, dim=1).mean(0).float() - texts(tokens).float().mean(0).cpu()
    return Calibration(norms.mean().item(), norms.std().item(), len(norms), skipped, negative, shift)


def measure_shipped(name: str, described: Mapping[str, Any], device: Any = "cpu") -> Calibration:
    """The scale of a described checkpoint over the pictures that come with the package; said as a note.

    The shift is measured where the text encoder is on this disk.
    """
    # the encoders of pictures and texts alone: a sound encoder has no part in it
    encoders = {kind: described["encoders"][kind] for kind in ("image", "text")}
    aligner = described_aligner({**described, "encoders": encoders}, torch.float32).to(device)
    pictures = shipped_pictures()
    texts = aligner.part("text") if description.on_disk(encoders["text"]) else None
    zero = described["decoder"]["unconditional"] == "zeros"
    found = measure(
        aligner.part("image"), list(pictures), zero_unconditional=zero, texts=texts, captions=list(pictures.values())
    )
    note(
        "measured scale",
        f"{name}: embed_norm {found.embed_norm:.3f} (spread {found.embed_norm_std:.3f}) was measured from the {found.count} "
        f"pictures that come with the package and is kept; `unialign-gen calibrate --checkpoint {name} --images FOLDER` "
        "takes your own",
    )
    return found
