"""The image space: what plays CLIP's part for the starter. Trained first, then frozen for good.

A head over EfficientNet-Lite0 features, trained to do two things at once. It must tell things apart: an
InfoNCE between the picture and its captions, where every picture of the same name counts as a positive. And it must keep how
a picture looks, or a decoder would have nothing to draw from: a small network reads a 16 x 16 thumbnail back out of it.
Uniformity (UniAlign, eq 9) spreads it over the sphere.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unialign_gen.heads import Head
from unialign_gen.objectives import uniformity
from unialign_gen.training.schedule import warm_then_cool

from .training import log

EMBED_DIM = 256
HIDDEN = 1024


def thumbnails(pictures: Tensor, side: int = 16) -> Tensor:
    """uint8 (N, 128, 128, 3) -> (N, 3 * side * side) in [-1, 1]."""
    x = torch.cat([F.adaptive_avg_pool2d(p.permute(0, 3, 1, 2).float(), side).flatten(1) for p in pictures.split(512)])
    return x / 127.5 - 1


def soft_cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy in both directions against all positives at once: `same` (B, B), 1 where two rows name one thing."""
    target = same / same.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean() - (target * logits.T.log_softmax(1)).sum(1).mean()


def train(
    features: Tensor,
    captions: list[Tensor],
    names: Tensor,
    thumbs: Tensor,
    weights: Tensor,
    folder: Path,
    *,
    look: float = 0.7,
    steps: int = 900,
    batch: int = 512,
    lr: float = 1e-3,
    seed: int = 0,
) -> tuple[Head, nn.Module]:
    """Trains the head.

    Args:
        features: (N, 1664) of the image encoder.
        captions: for each picture its captions' text features (k, 384).
        names: (N,) integers, equal where two pictures show the same thing.
        thumbs: (N, 768).
        weights: (N,) sampling weights.
        look: weight of the appearance term.

    Returns the head and the network that reads thumbnails back, which is thrown away after evaluation.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    head = Head(features.shape[1], EMBED_DIM, HIDDEN, dropout=0.5)
    head.fit_standardisation(features)
    caption_head = nn.Sequential(nn.Linear(384, 512), nn.GELU(), nn.Linear(512, EMBED_DIM))
    reader = nn.Sequential(nn.Linear(EMBED_DIM, 1024), nn.GELU(), nn.Linear(1024, thumbs.shape[1]))
    modules = nn.ModuleList([head, caption_head, reader])
    optimiser = torch.optim.AdamW(modules.parameters(), lr=lr, weight_decay=0.05)
    scale = thumbs.var(0).mean()
    for step in range(steps):
        rows = torch.multinomial(weights, batch, generator=generator)
        text = torch.stack([captions[i][torch.randint(len(captions[i]), (1,), generator=generator)[0]] for i in rows.tolist()])
        x = features[rows]
        x = x + 0.1 * head.std * torch.randn(x.shape, generator=generator)
        z = F.normalize(head(x), dim=1)
        t = F.normalize(caption_head(text), dim=1)
        same = (names[rows][:, None] == names[rows][None]).float()
        meaning = soft_cross_entropy(z @ t.T / 0.1, same)
        appearance = F.mse_loss(reader(z * EMBED_DIM**0.5), thumbs[rows]) / scale
        spread = uniformity(z, 0.5)
        loss = meaning + look * appearance + 0.2 * spread
        for group in optimiser.param_groups:
            group["lr"] = lr * warm_then_cool(step / steps, cool=0.5)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 250 == 249:
            log(
                folder / "log.jsonl",
                step=step + 1,
                meaning=meaning.item(),
                appearance=appearance.item(),
                uniformity=spread.item(),
            )
    return head.eval(), reader.eval()
