"""Several things beside each other in one picture: each strip of it is denoised towards an embedding of its own.

One point of the space says what a picture shows, and hardly where. Of the point between a cat and a car a small decoder draws
two things that are both a little of either. So at every step the denoiser is asked once for each strip, and of each answer that
strip is taken, with soft seams (as in MultiDiffusion, Bar-Tal et al. 2023, and by composition as in Liu et al. 2022).

A decoder that was trained on pictures of one thing draws half of it in a strip. For such a one each thing is first drawn alone,
made smaller and set in its strip; at much noise this layout stands for the denoiser's answer, and the strips are denoised from
there (as in SDEdit, Meng et al. 2022, which begins at a picture that is put together by hand).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
        ends = self.ends(width)[:-1, None] - 0.5  # in columns, between the strips
        after = torch.sigmoid((torch.arange(width, dtype=torch.float64) - ends) / SEAM)  # (k - 1, width)
        one = torch.ones(1, width, dtype=torch.float64)
        shares = (torch.cat([one, after]) - torch.cat([after, 0 * one])).to(latents)  # (k, width)
        return shares[:, None, :, None] if self.down else shares[:, None, None, :]

    def ends(self, width: int) -> Tensor:
        """Where the strips of a picture so wide end (k,)."""
        shares = torch.tensor(self.widths, dtype=torch.float64)
        return shares.cumsum(0) / shares.sum() * width

    def set_in(self, pictures: Tensor) -> Tensor:
        """One picture (3, h, w) out of those of the strips' things (k, 3, h, w): each as large as fits, in the middle of its
        strip, and around it the median colour of its edge.
        """
        along = -2 if self.down else -1
        made, start = [], 0
        for picture, end in zip(pictures, self.ends(pictures.shape[along]).round().int().tolist(), strict=True):
            room = [end - start, pictures.shape[-1]] if self.down else [pictures.shape[-2], end - start]
            scale = min(a / b for a, b in zip(room, picture.shape[1:], strict=True))
            height, width = (max(1, round(scale * side)) for side in picture.shape[1:])
            edge = torch.cat([picture[:, [0, -1]].flatten(1), picture[:, :, [0, -1]].flatten(1)], 1).median(1).values  # (3,)
            strip = edge[:, None, None].expand(3, *room).clone()
            top, left = (room[0] - height) // 2, (room[1] - width) // 2
            small = F.interpolate(picture[None], (height, width), mode="bicubic", antialias=True)[0]
            strip[:, top : top + height, left : left + width] = small.clamp(0, 1)
            made.append(strip)
            start = end
        return torch.cat(made, along)


@dataclass(frozen=True)
class Layout:
    """What the strips of pictures look like above some noise.

    Attributes:
        latents: of each picture (C, h, w), clean; None where it has no strips.
        scheduler: the one that steps; it says how noisy a timestep is, and what the denoiser predicts.
        noise: share of the timesteps below which the strips are denoised.
    """

    latents: Sequence[Tensor | None]
    scheduler: Any
    noise: float

    def holds(self, timestep: Any) -> bool:
        """Whether it stands for the denoiser's answer at a timestep."""
        return float(timestep) >= self.noise * self.scheduler.config["num_train_timesteps"]

    def answer(self, number: int, noisy: Tensor, timestep: Any) -> Tensor:
        """What a denoiser would say of latents (B, C, h, w) that are a picture's, with noise: their noise (Ho et al. 2020,
        eq. 4), their velocity (Salimans & Ho 2022, appendix D), or they themselves.
        """
        clean = self.latents[number]
        assert clean is not None
        kept = float(self.scheduler.alphas_cumprod[int(timestep)])
        noise = (noisy - kept**0.5 * clean) / max(1 - kept, 1e-8) ** 0.5
        kinds = {"epsilon": noise, "v_prediction": kept**0.5 * noise - (1 - kept) ** 0.5 * clean, "sample": clean}
        return kinds[self.scheduler.config["prediction_type"]]


@contextmanager
def drawn_beside(
    unet: Any, strips: Sequence[Strips | None], conditions: Sequence[Tensor | None], layout: Layout | None = None
) -> Iterator[None]:
    """Inside, a UNet of diffusers denoises rows that have strips towards all of these; outside it is what it was.

    Args:
        strips: of each picture, of one at least; under guidance the rows without a condition stand before theirs.
        conditions: of each picture its strips' conditions (k, width) as the UNet takes them, in place of the row's own:
            `image_embeds` among its added conditions, or its class labels.
        layout: what pictures with strips look like at much noise; then these are denoised only from there on.
    """
    patched, whole = "forward" in vars(unet), unet.forward
    found = [(i, s, c) for i, (s, c) in enumerate(zip(strips, conditions, strict=True)) if s is not None and c is not None]

    def forward(sample: Tensor, timestep: Any, encoder_hidden_states: Any = None, **options: Any) -> Any:
        rows = len(sample)
        first = rows - len(strips)
        if layout is not None and layout.holds(timestep):
            if len(found) < len(strips):
                made = whole(sample, timestep, encoder_hidden_states, **{**options, "return_dict": False})[0]
            else:
                made = sample.new_zeros(rows, int(unet.config["out_channels"]), *sample.shape[2:])
            for i, _, _ in found:
                mine = slice(i, None, len(strips))  # with and without its condition
                made[mine, : sample.shape[1]] = layout.answer(i, sample[mine], timestep)
                made[mine, sample.shape[1] :] = 0  # what may stand for a variance
            return (made,)
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
