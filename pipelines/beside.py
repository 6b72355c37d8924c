"""Several things beside each other in one picture: each strip of it is denoised towards an embedding of its own.

One point of the space says what a picture shows, and hardly where. Of the point between a cat and a car a small decoder draws
two things that are both a little of either. So at every step the denoiser is asked once for each strip, and of each answer that
strip is taken, with soft seams (as in MultiDiffusion, Bar-Tal et al. 2023, and by composition as in Liu et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARE = 0.85  # of a strip's own thing in what it is denoised towards; the rest is the whole picture's point
SEAM = 0.7  # latents over which one strip fades into the next


@dataclass(frozen=True)
class Strips:
    """What stands beside each other in a picture, from left to right.

    Attributes:
        embeds: unit embeddings (k, d).
        widths: of the strips (k,), above 0; only their ratios count.
        down: they stand above each other, from top to bottom, and their widths are heights.
    """

    embeds: Tensor
    widths: tuple[float, ...]
    down: bool = False

    def masks(self, latents: Tensor) -> Tensor:
        """How much each strip counts at every place of latents (..., h, w): (k, 1, 1, w) or (k, 1, h, 1), with sum 1."""
        width = latents.shape[-2 if self.down else -1]
        shares = torch.tensor(self.widths, dtype=torch.float64)
        ends = shares.cumsum(0)[:-1, None] / shares.sum() * width - 0.5  # in columns, between the strips
        after = torch.sigmoid((torch.arange(width, dtype=torch.float64) - ends) / SEAM)  # (k - 1, width)
        one = torch.ones(1, width, dtype=torch.float64)
        shares = (torch.cat([one, after]) - torch.cat([after, 0 * one])).to(latents)  # (k, width)
        return shares[:, None, :, None] if self.down else shares[:, None, None, :]


def own(points: Tensor, whole: Tensor) -> Tensor:
    """Points (k, d) of things that stand in one picture, whose point is `whole` (d,): unit vectors near them both."""
    return F.normalize(torch.lerp(whole, points, SHARE), dim=-1)


@contextmanager
def drawn_beside(unet: nn.Module, strips: Sequence[Strips | None], conditions: Sequence[Tensor | None]) -> Iterator[None]:
    """Inside, a UNet of diffusers denoises rows that have strips towards all of these; outside it is what it was.

    Args:
        strips: of each picture, of one at least; under guidance the rows without a condition stand before theirs.
        conditions: of each picture its strips' conditions (k, width) as the UNet takes them, in place of the row's own:
            `image_embeds` among its added conditions, or its class labels.
    """
    patched, whole = "forward" in vars(unet), unet.forward
    found = [(i, s, c) for i, (s, c) in enumerate(zip(strips, conditions, strict=True)) if s is not None and c is not None]

    def forward(sample: Tensor, timestep: Any, encoder_hidden_states: Any = None, **options: Any) -> Any:
        rows = len(sample)
        first = rows - len(strips)
        again = torch.tensor([first + i for i, s, _ in found for _ in s.widths[1:]], device=sample.device)

        def more(value: Any) -> Any:
            fits = isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows
            return torch.cat([value, value[again]]) if fits else value

        def conditioned(value: Tensor) -> Tensor:
            value = more(value).clone()
            value[[first + i for i, _, _ in found]] = torch.stack([c[0] for _, _, c in found]).to(value)
            value[rows:] = torch.cat([c[1:] for _, _, c in found]).to(value)
            return value

        if options.get("class_labels") is not None:
            options["class_labels"] = conditioned(options["class_labels"])
        else:
            added = options["added_cond_kwargs"]
            options["added_cond_kwargs"] = {**added, "image_embeds": conditioned(added["image_embeds"])}
        made = whole(more(sample), more(timestep), more(encoder_hidden_states), **{**options, "return_dict": False})[0]
        out, at = made[:rows].clone(), rows
        for i, s, _ in found:
            others = made[at : at + len(s.widths) - 1]  # (k - 1, C, h, w)
            out[first + i] = (torch.cat([made[first + i][None], others]) * s.masks(made)).sum(0)
            at += len(others)
        return (out,)

    unet.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        if patched:
            unet.forward = whole  # type: ignore[method-assign]
        else:
            del unet.forward
