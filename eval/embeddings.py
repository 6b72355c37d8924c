"""From kept features of encoders to unit embeddings, one row a sample, under any heads, and prompts mixed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unialign_gen.data.cache import FeatureCache, Ragged, counted
from unialign_gen.data.extract_config import check_encoder
from unialign_gen.errors import InputError
from unialign_gen.loading.methods import head, head_folder
from unialign_gen.mixing import mix
from unialign_gen.request import MODALITIES
from unialign_gen.training.features import embed_mean

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner


@torch.no_grad()
def rows(features: Ragged, head: nn.Module) -> Tensor:
    """Unit embeddings (R, d) of all rows, such as all captions."""
    parts = [F.normalize(head(part.float()).float(), dim=1) for part in features.values.split(8192)]
    return torch.cat(parts) if parts else features.values[:].float()


def whole(z: Mapping[str, Tensor]) -> Tensor:
    """Which samples (N,) have all modalities, of embeddings (N, d) that are zeros where a sample lacks one."""
    return torch.stack([part.any(1) for part in z.values()]).all(0)


def owners(features: Ragged) -> Tensor:
    """Of each row, the number of its sample (R,)."""
    return torch.repeat_interleave(torch.arange(len(features)), features.counts)


def initial(modality: str) -> str:
    """What tables call a modality: one of one's own by its name."""
    return modality[0].upper() if modality in MODALITIES else modality


def needed(kinds: Sequence[str]) -> list[str]:
    """The modalities that some kind uses, in one order: those of every checkpoint, then one's own."""
    names = {m for kind in kinds for m in kind.split("+")}
    return [m for m in MODALITIES if m in names] + sorted(names - set(MODALITIES))


def frame_of(features: FeatureCache, frame: int) -> Ragged:
    """Features of pictures: the corpus' own, or, where a sample has none, those of its video's frame of this number."""
    known = {m: features.features(m) for m in ("image", "video") if m in features.modalities}
    found = []
    for i in range(len(features.ids)):
        own = known["image"][i][:1] if "image" in known else torch.zeros(0, 0)
        found.append(own if len(own) or "video" not in known else known["video"][i][frame : frame + 1])
    if not any(map(len, found)):
        raise InputError("no sample has a picture or a video to draw again")
    return Ragged(torch.cat([x for x in found if len(x)]), counted(torch.tensor([len(x) for x in found])))


def head_of(features: FeatureCache, name: str, run: Path | None, aligner: Aligner | None) -> nn.Module:
    """The head of a modality, see `methods.head`; an `InputError` where it was trained with another encoder than theirs."""
    if (folder := head_folder(name, run)) is not None:
        check_encoder(features, name, folder)
    return head(name, run, aligner)


def of_modality(
    features: FeatureCache, name: str, run: Path | None, aligner: Aligner | None, frame: int | None = None
) -> Tensor:
    """Unit embeddings (N, d) of one modality, zeros where a sample lacks it: the first caption, the mean of other rows.

    Args:
        frame: also of a sample without a picture, by this frame of its video.
    """
    rows = features.features(name) if name != "image" or frame is None else frame_of(features, frame)
    return embed_mean(rows.first() if name == "text" else rows, head_of(features, name, run, aligner))


def embed(
    features: FeatureCache, kinds: Sequence[str], run: Path | None, aligner: Aligner | None, frame: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Unit embeddings (N, d) by kind, mixed with equal weights on the sphere, and which samples have all of it (N,)."""
    parts = {m: of_modality(features, m, run, aligner, frame) for m in needed(kinds)}
    has = whole(parts)
    found = {}
    for kind in kinds:
        names = kind.split("+")
        found[kind] = torch.zeros_like(parts[names[0]])
        found[kind][has] = mix([parts[m][has] for m in names]) if len(names) > 1 else parts[names[0]][has]
    return found, has
