"""What every encoder offers."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


class Encoder(nn.Module):
    """A frozen backbone: prepared input to features.

    Attributes:
        dim: width of the features.
        downmix: how a sound encoder wants channels mixed, the `mean` of them or the `left` one alone, see `media.load_sound`.
        whole_clips: of a video encoder: `prepare` takes clips or files, not single frames.
        config: what `encoders.load_encoder` needs to build it again; `encoder` names its kind.
    """

    dim: int
    downmix: Literal["mean", "left"] = "mean"
    whole_clips: bool = False
    config: dict[str, Any]

    def prepare(self, inputs: list[Any]) -> Tensor:
        """Raw inputs of the encoder's modality, as one batch for `forward`."""
        raise TypeError(f"{type(self).__name__} does not say how to prepare its inputs")

    def tell_unread(self, text: str) -> None:
        """Notes of what a text encoder cannot read of a text; see `unialign_gen.media.text.tell_unread`."""

    def collate(self, parts: list[Tensor]) -> Tensor:
        """Batches that `prepare` made, one after the other, as if it had prepared them together.

        Where they differ in length they are padded with NaN, as sound encoders do themselves.
        """
        if len({part.shape[1:2] for part in parts}) == 1:
            return torch.cat(parts)
        if not parts[0].is_floating_point():
            raise TypeError(f"{type(self).__name__} does not say how inputs of different lengths become one batch")
        return pad_sequence([row for part in parts for row in part], batch_first=True, padding_value=float("nan"))

    def extra_files(self) -> dict[str, str]:
        """Text files that belong to the encoder, by name, such as a tokenizer."""
        return {}
