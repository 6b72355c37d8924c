"""The image space: what plays CLIP's part for the starter. Trained first, then frozen for good.

A head over EfficientNet-Lite0 features, trained to do four things at once. It tells things apart, and their colours: an
InfoNCE between a picture and its captions, where every caption that is true of the picture counts as a positive. It keeps how
a picture looks: a small network reads a 16 x 16 thumbnail back out of it. It means both: the embedding of a picture with two
things is drawn to the mix of theirs, as a mix of prompts is. Uniformity (UniAlign, eq 9) spreads it over the sphere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unialign_gen.data.cache import counted
from unialign_gen.heads import Head
from unialign_gen.objectives import uniformity
from unialign_gen.training.schedule import warm_then_cool

from . import colours
from .features import TextFeatures
from .files import progress
from .loop import BF16, sampling_weights
from .plan import SIZES
from .rows import Picture, numbered

EMBED_DIM, HIDDEN = 256, 1024
SHARES = {"plain": 0.5, "recoloured": 0.22, "composition": 0.28}  # of a batch
ALONE = 0.8  # cosine that a picture of one thing, several times or on a ground, has at least to the thing itself
SHADES = ["", *colours.HUES, *(f"{m} {h}" for m in ("dark", "light") for h in colours.HUES), "brown", *colours.SHADES]


class Examples:
    """What the space is trained on, of N pictures: their rows, encoder features (N, width), and pixels (N, h, h, 3)."""

    def __init__(self, rows: Sequence[Picture], features: np.ndarray, pixels: np.ndarray, texts: TextFeatures):
        place, names = {row.id: n for n, row in enumerate(rows)}, [row.name for row in rows]
        captions = [caption for row in rows for caption in row.said]
        made_of = [[place[p] for p in dict.fromkeys(r.parts)] if r.kind == "composition" else [n] for n, r in enumerate(rows)]
        kinds = {name: n for n, name in enumerate(dict.fromkeys(names[p] for mine in made_of for p in mine))}

        def own_colours(mine: list[int], caption: str) -> bool:
            return not any(f"{shade} {names[p]}" in caption for p in mine for shade in SHADES[1:])

        self.features = torch.from_numpy(features)
        # of all captions (captions, 384); those of picture i are first[i] : first[i + 1]
        self.texts, self.first = texts(captions).half(), counted(torch.tensor([len(row.said) for row in rows]))
        # the colour that each caption names, and each picture has: its place in SHADES, 0 for none
        self.said = torch.tensor([SHADES.index(r.colour) if r.colour and r.colour in c else 0 for r in rows for c in r.said])
        self.shades = torch.tensor([SHADES.index(row.colour) for row in rows])
        # what each picture shows (N,), equal where it is the same
        self.things = numbered([r.captions[0].lower() if r.kind == "composition" else r.name for r in rows])
        # the one or two pictures that a composition is made of (N, 2), its own twice for others, and what these show
        self.parts = torch.tensor([[mine[0], mine[-1]] for mine in made_of])
        self.kinds = torch.tensor([kinds.get(name, 0) for name in names])[self.parts]
        # whether a picture shows two things in their own colours (N,)
        pairs = [len(mine) == 2 and own_colours(mine, r.captions[0]) for mine, r in zip(made_of, rows, strict=True)]
        self.pair = torch.tensor(pairs)
        self.thumbs = thumbnails(pixels)  # (N, 768) in [-1, 1]
        # how often each is drawn (N,): the table's concepts more often
        self.weights = sampling_weights(((row.name, row.kind, 6.0 if row.concepts else 1.0) for row in rows), SHARES)


def thumbnails(pictures: np.ndarray, side: int = 16) -> Tensor:
    """uint8 (N, h, h, 3) -> (N, 3 * side * side) in [-1, 1]."""
    n, h = pictures.shape[:2]
    parts = [pictures[at : at + 512].reshape(-1, side, h // side, side, h // side, 3).mean((2, 4)) for at in range(0, n, 512)]
    return torch.from_numpy(np.concatenate(parts).transpose(0, 3, 1, 2).reshape(n, -1).astype(np.float32) / 127.5 - 1)


def true_of(data: Examples, rows: Tensor, captions: Tensor) -> Tensor:
    """1 where a caption is true of a picture (B, B): it names what the picture shows, and no colour, or the picture's."""
    same = data.things[rows][:, None] == data.things[rows][None]
    said = data.said[captions][None]
    return (same & ((said == 0) | (said == data.shades[rows][:, None]))).float()


def soft_cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy in both directions against all positives at once: `same` (B, B), 1 where row and column belong together."""
    shares = same / same.sum(1, keepdim=True), same.T / same.T.sum(1, keepdim=True)
    return F.cross_entropy(logits, shares[0]) + F.cross_entropy(logits.T, shares[1])


def train(data: Examples, *, steps: int = SIZES.space_steps, batch: int = SIZES.space_batch, lr: float = 1e-3) -> Head:
    """Trains the head; what reads captions, thumbnails and colours beside it is thrown away."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    head = Head(data.features.shape[1], EMBED_DIM, HIDDEN, dropout=0.4)
    head.fit_standardisation(data.features.float())
    caption_head = nn.Sequential(nn.Linear(data.texts.shape[1], 768), nn.GELU(), nn.Linear(768, EMBED_DIM))
    reader = nn.Sequential(nn.Linear(EMBED_DIM, 1024), nn.GELU(), nn.Linear(1024, data.thumbs.shape[1]))
    shade_of, kinds = nn.Linear(EMBED_DIM, len(SHADES)), nn.Embedding(int(data.kinds.max()) + 1, EMBED_DIM)
    trained = nn.ModuleList([head, caption_head, reader, shade_of, kinds])
    optimiser = torch.optim.AdamW(trained.parameters(), lr=lr, weight_decay=0.05)
    course = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_then_cool(step / steps, cool=0.5))
    scale = data.thumbs.var(0).mean()
    for _ in progress(range(steps), "steps"):
        rows = torch.multinomial(data.weights, batch, replacement=True, generator=generator)
        composed = data.parts[rows][:, 0] != rows
        mixed = rows[composed]
        places = torch.cat([rows, data.parts[mixed].T.flatten()])
        x = data.features[places].float()
        x = x + 0.1 * head.std * torch.randn(x.shape, generator=generator)
        first, count = data.first[rows], data.first[rows + 1] - data.first[rows]
        captions = first + (torch.rand(batch, generator=generator) * count).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):  # twice as fast; losses stay in fp32
            embeds, called = head(x), caption_head(data.texts[captions].float())
        z, part, other = F.normalize(embeds.float(), dim=1).split([batch, len(mixed), len(mixed)])
        t = F.normalize(called.float(), dim=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            seen = reader(z * EMBED_DIM**0.5)
        near = (z[composed] * F.normalize(part + other, dim=1)).sum(1)
        logits = (z @ F.normalize(kinds.weight, dim=1).T / 0.06).log_softmax(1)
        losses = {
            "meaning": soft_cross_entropy(z @ t.T / 0.08, true_of(data, rows, captions)),
            "appearance": 0.7 * F.mse_loss(seen.float(), data.thumbs[rows]) / scale,
            "shade": 0.3 * F.cross_entropy(shade_of(z * EMBED_DIM**0.5), data.shades[rows], ignore_index=0),
            "kind": -0.5 * logits.gather(1, data.kinds[rows]).mean(),
            "both": 6 * torch.where(data.pair[mixed], 1 - near, (ALONE - near).clamp(min=0)).mean(),
            "spread": 0.2 * uniformity(z, 0.5),
        }
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        course.step()
    return head.eval().requires_grad_(False)


def embed(head: Head, features: np.ndarray) -> np.ndarray:
    """Unit embeddings (N, 256) fp16 of image features (N, width)."""
    parts = [F.normalize(head(torch.from_numpy(x).float()), dim=1) for x in np.array_split(features, len(features) // 4096 + 1)]
    return torch.cat(parts).numpy().astype(np.float16)
