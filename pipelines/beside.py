"""Several things in one picture: each strip of it is denoised towards an embedding of its own.

One point of the space says what a picture shows, and hardly where. Of the point between a cat and a car a small decoder draws
two things that are both a little of either. So at every step the denoiser is asked once for each strip, and of each answer that
strip is taken, with soft seams (as in MultiDiffusion, Bar-Tal et al. 2023, and by composition as in Liu et al. 2022).

A decoder that was trained on pictures of one thing draws half of it in a strip. For such a one each thing is drawn alone,
enlarged, and set in its strip as a picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SEAM = 0.7  # latents over which one strip fades into the next
FADE = 0.005  # the same between things that are drawn alone, as a share of the picture's side
ALIKE = 0.2  # colours that are one ground differ by less, in [0, 1]
SAME, EDGE = 0.05, 0.007  # by how much a ground differs from itself; over how much of a side a thing's edge fades into it
MARGIN = 0.1  # of a picture's side, over which it fades into its ground
GAP = 0.1  # of a strip's sides, between several things of a kind

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture's sides
Colour = tuple[float, float, float]  # red, green, blue in [0, 1]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def side_by_side(widths: Sequence[float], down: bool = False, box: Box = WHOLE) -> tuple[Box, ...]:
    """A box parted from left to right or, with `down`, from top to bottom; only the ratios of the widths count.

    >>> side_by_side([1, 3])
    ((0.0, 0.0, 0.25, 1.0), (0.25, 0.0, 1.0, 1.0))
    """
    left, top, right, bottom = box
    start, end = (top, bottom) if down else (left, right)
    whole = sum(widths)
    edges = [start + at / whole * (end - start) for at in itertools.accumulate(widths, initial=0.0)]
    return tuple((left, a, right, b) if down else (a, top, b, bottom) for a, b in itertools.pairwise(edges))


def in_lines(count: int, box: Box = WHOLE) -> tuple[Box, ...]:
    """Places in a box for so many things, all as large as each other and as large as can be, line by line; `GAP` keeps several
    apart.

    >>> [(round(left, 2), round(top, 3)) for left, top, _, _ in in_lines(5)]  # three above two
    [(0.02, 0.025), (0.35, 0.025), (0.68, 0.025), (0.18, 0.525), (0.52, 0.525)]
    """
    if count == 1:
        return (box,)
    width, height = box[2] - box[0], box[3] - box[1]
    columns = max(range(count, 0, -1), key=lambda columns: min(width / columns, height / -(-count // columns)))
    found = list[Box]()
    for line in side_by_side([1] * -(-count // columns), True, box):
        cells = side_by_side([1] * columns, False, line)[: count - len(found)]
        shift = (line[2] - cells[-1][2]) / 2  # fewer in the last line stand in the middle
        for left, top, right, bottom in cells:
            x, y = GAP / 2 * (right - left), GAP / 2 * (bottom - top)
            found.append((left + shift + x, top + y, right + shift - x, bottom - y))
    return tuple(found)


@dataclass(frozen=True)
class Strips:
    """Several things in a picture, each in a strip of its own.

    Attributes:
        embeds: unit embeddings (k, d).
        boxes: the strips (k,). What is in none of them belongs to the nearest.
        grounds: what each of what is drawn alone stands on (k,); None leaves it its own, as none at all do.
        texts: what names them (k,), "" where that is no text.
    """

    embeds: Tensor
    boxes: tuple[Box, ...]
    grounds: tuple[Colour | None, ...] = ()
    texts: tuple[str, ...] = ()

    def masks(self, latents: Tensor, seam: float = SEAM) -> Tensor:
        """How much each strip counts at every place of latents (..., h, w), or of pixels: (k, 1, h, w), with sum 1."""
        height, width = latents.shape[-2:]

        def between(side: int, starts: Sequence[float], ends: Sequence[float]) -> Tensor:  # (k, side)
            at = torch.arange(side, dtype=torch.float64) + 0.5
            first, last = (torch.tensor(edges, dtype=torch.float64)[:, None] * side for edges in (starts, ends))
            return torch.sigmoid((at - first) / seam) * torch.sigmoid((last - at) / seam)

        lefts, tops, rights, bottoms = zip(*self.boxes, strict=True)
        shares = between(height, tops, bottoms)[:, None, :, None] * between(width, lefts, rights)[:, None, None]
        return (shares / shares.sum(0)).to(latents)

    def set_in(self, pictures: Tensor) -> Tensor:
        """One picture (3, h, w) out of those of the strips' things (k, 3, h, w) in [0, 1]: each as large as fits, in the middle
        of its strip, and around it its ground, the median colour of its margin, which what is like it fades into; white where
        less than half of the margin is like that. Grounds that are much alike become one; those of `grounds` take their place,
        but for what a thing encloses.
        """
        high, wide = pictures.shape[2:]
        down, across = ((torch.arange(side, device=pictures.device) + 0.5) / side for side in (high, wide))
        inward = torch.minimum(torch.minimum(down, 1 - down)[:, None], torch.minimum(across, 1 - across))
        outer = (1 - inward / MARGIN).clamp(min=0)  # (h, w): 1 at the border, 0 from its margin on
        margins = pictures[:, :, outer > 0]  # (k, 3, m)
        grounds = margins.median(2).values  # (k, 3)
        plain = ((margins - grounds[:, :, None]).abs().amax(1) < ALIKE).float().mean(1) > 0.5
        grounds[~plain] = 1.0  # a sunset goes on to its border, and has no ground
        unlike = (pictures - grounds[:, :, None, None]).abs().amax(1, keepdim=True)  # (k, 1, h, w)
        like = (2 - unlike / ALIKE).clamp(0, 1)
        shared, given = grounds.clone(), [n for n, ground in enumerate(self.grounds) if ground is not None]
        for n in given:
            like[n], shared[n] = like[n] * outside(unlike[n : n + 1] < SAME)[0], shared.new_tensor(self.grounds[n])
        if not given and (grounds.amax(0) - grounds.amin(0)).max() < ALIKE:
            shared = grounds.mean(0).expand_as(grounds)
        pictures, grounds = pictures + like * (shared - grounds)[:, :, None, None], shared
        panels = grounds[:, :, None, None].repeat(1, 1, high, wide)  # (k, 3, h, w)
        pictures = torch.lerp(pictures, panels, outer * like)
        for panel, picture, box in zip(panels, pictures, self.boxes, strict=True):
            left, top, right, bottom = (round(at * side) for at, side in zip(box, (wide, high) * 2, strict=True))
            scale = min((bottom - top) / high, (right - left) / wide)
            height, width = round(scale * high), round(scale * wide)
            if min(height, width) > 0:
                small = F.interpolate(picture[None], (height, width), mode="bicubic", antialias=True)[0]
                y, x = (top + bottom - height) // 2, (left + right - width) // 2
                panel[:, y : y + height, x : x + width] = small.clamp(0, 1)
        return (panels * self.masks(panels, FADE * max(high, wide))).sum(0)


def outside(same: Tensor, side: int = 64) -> Tensor:
    """Of the places that are as the ground is (k, 1, h, w) those that are joined to the border in `side` cells a side, and a
    little more, where a thing's edge is: 1; what a thing encloses is 0.
    """
    same = same.float()
    free = (F.adaptive_avg_pool2d(same, side) > 0.5).float()
    reached = free * F.pad(torch.zeros_like(free[..., 1:-1, 1:-1]), (1, 1, 1, 1), value=1.0)
    while True:
        across, down = (F.max_pool2d(reached, size, 1, edge) for size, edge in (((1, 3), (0, 1)), ((3, 1), (1, 0))))
        more = free * torch.maximum(across, down)
        if torch.equal(more, reached):
            break
        reached = more
    within = F.interpolate(F.max_pool2d(reached, 3, 1, 1), same.shape[-2:])
    edge = round(EDGE * same.shape[-1])
    return F.max_pool2d(within * same, 2 * edge + 1, 1, edge)


@contextmanager
def drawn_beside(unet: Any, strips: Sequence[Strips | None], conditions: Sequence[Tensor | None]) -> Iterator[None]:
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
        again = torch.tensor([first + i for i, s, _ in found for _ in s.boxes[1:]], device=sample.device)

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
            others = made[at : at + len(s.boxes) - 1]  # (k - 1, C, h, w)
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
