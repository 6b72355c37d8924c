"""The trained heads as one module, and the objective's gradient over batches that are encoded in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders.base import Encoder
from ..heads import Head
from ..objectives import Objective
from .rows import Rows, StreamBatch


class Heads(nn.Module):
    """Heads by modality, with their encoders where these are trained too.

    A call encodes several streams at once, so that one backward pass serves them all.
    """

    def __init__(self, heads: Mapping[str, Head], encoders: Mapping[str, Encoder] | None = None):
        super().__init__()
        self.heads = nn.ModuleDict(heads)
        self.encoders = nn.ModuleDict(encoders or {})

    def forward(self, batches: list[dict[str, Rows]]) -> list[dict[str, Tensor]]:
        """Unit embeddings (b, d) in fp32 of each stream's rows; zeros for a sample that lacks the modality."""
        return [{name: self.encode(name, rows) for name, rows in batch.items()} for batch in batches]

    def encode(self, modality: str, rows: Rows) -> Tensor:
        """Unit embeddings (b, d), the mean over a sample's rows where it has several."""
        features = self.encoders[modality](rows.values) if modality in self.encoders else rows.values
        z = F.normalize(self.heads[modality](features).float(), dim=1)
        if rows.owner is not None:
            total = torch.zeros(rows.count, z.shape[1], device=z.device).index_add(0, rows.owner, z)
            z = F.normalize(total, dim=1)
        return z if rows.present is None else torch.where(rows.present[:, None], z, 0.0)


def loss_of(
    objective: nn.Module, z: Mapping[str, Tensor], batch: StreamBatch, anchor: str, detach: list[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective on a stream's embeddings: its value, and its terms if it is an `Objective` and not just a module."""
    inputs = {} if batch.anchor is None else {anchor: batch.anchor}
    inputs |= {name: points.detach() if name in detach else points for name, points in z.items()}
    masks = {name: rows.present for name, rows in batch.rows.items() if rows.present is not None}
    if not isinstance(objective, Objective):  # one's own, which need not have terms
        return objective(inputs, masks), {}
    terms = objective.parts(inputs, masks)
    return objective.total(terms), {name: term.detach() for name, term in terms.items()}


def is_lost(z: Tensor, rows: Rows) -> bool:
    """Whether the embedding (b, d) of a sample that has the modality is zero, or no number."""
    there = z if rows.present is None else z[rows.present]
    return not bool((there.norm(dim=1) > 0.5).all())


def parts_of(rows: dict[str, Rows], count: int, size: int) -> list[dict[str, Rows]]:
    """A stream's rows of `count` samples in parts of `size`; 0 leaves them whole."""
    step = size or count
    return [{name: r.part(at, at + step) for name, r in rows.items()} for at in range(0, count, step)]


def whole_batch_gradients(
    encode: Callable[[list[dict[str, Rows]], int], list[dict[str, Tensor]]],
    batches: list[StreamBatch],
    value: Callable[[list[dict[str, Tensor]]], Tensor],
    parameters: list[nn.Parameter],
    micro_batch: int,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    hold: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Gradients of a loss over whole batches whose rows are encoded `micro_batch` at a time (Gao et al. 2021, GradCache).

    Embeddings first, then the loss's gradient with respect to them, then that gradient through each part. The graph of
    only one part is held at a time; a single part is encoded once and gone back through at once.

    Args:
        encode: rows of all streams, and the part's number, to embeddings. A part that is encoded again must give the same,
            so whatever is drawn in it has to be seeded by the number.
        value: embeddings of all streams to the loss.
        parameters: the objective's own, with gradients cleared as those of the heads are.
        scale: what the loss is multiplied by before its gradients are taken, as a gradient scaler does.
        hold: entered around every part but the last, so that gradients are exchanged between processes once.

    Returns the loss, detached and not scaled.
    """
    split = [parts_of(batch.rows, len(batch), micro_batch) for batch in batches]
    count = max(len(parts) for parts in split)
    # short streams come late, so that the last part, which exchanges gradients, has all of them
    late = [count - len(parts) for parts in split]
    groups = [[parts[i - wait] if i >= wait else {} for parts, wait in zip(split, late, strict=True)] for i in range(count)]
    if count == 1:
        encoded = encode(groups[0], 0)
        loss = value(encoded)
        flat = [z for stream in encoded for z in stream.values()]
        nothing = [z.new_zeros(()).expand_as(z) for z in flat]  # as below
        torch.autograd.backward([scale(loss), *flat], [None, *nothing])
        return loss.detach()
    with torch.no_grad():
        parts = [encode(group, i) for i, group in enumerate(groups)]
    leaves = [
        {name: torch.cat([p[s][name] for p in parts if name in p[s]]).requires_grad_() for name in batch.rows}
        for s, batch in enumerate(batches)
    ]
    flat = [leaf for stream in leaves for leaf in stream.values()]
    loss = value(leaves)
    gradients = torch.autograd.grad(scale(loss), [*flat, *parameters], allow_unused=True)
    for parameter, gradient in zip(parameters, gradients[len(flat) :], strict=True):
        parameter.grad = gradient
    # what nothing depends on still takes part, with zeros: processes exchange the gradients of every parameter
    towards = iter([torch.zeros_like(z) if g is None else g for z, g in zip(flat, gradients, strict=False)])
    split_gradients = [{name: next(towards).split(micro_batch) for name in batch.rows} for batch in batches]
    for i, group in enumerate(groups):
        with hold() if i < count - 1 else nullcontext():
            mine = [
                (z, split_gradients[s][name][i - late[s]])
                for s, stream in enumerate(encode(group, i))
                for name, z in stream.items()
            ]
            torch.autograd.backward([z for z, _ in mine], [g for _, g in mine])
    return loss.detach()
