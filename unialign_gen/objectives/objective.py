"""What all objectives share: one signature, terms by name, checks before the first batch, a learnable temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..notes import note
from . import ranks
from .batch import Batch, Embeddings, Masks, full_precision, prepare


class Objective(nn.Module):
    """A loss over modalities: `objective({"image": z_i, "text": z_t}, {"text": has_text})` -> scalar.

    To write one's own, define `terms`, and `total` if it is not their sum. Embeddings arrive checked, as unit vectors in full
    precision; `ranks.mean`, `kernel.pair_lse` and the like give values of the whole batch when several processes share it.

    >>> class Cosine(Objective):
    ...     def terms(self, batch):
    ...         image, text = batch.z["image"], batch.z["text"]                      # (B, d) each
    ...         return {"cosine": ranks.mean(1 - (image * text).sum(1), batch.both("image", "text"))}
    >>> z = torch.eye(4)
    >>> Cosine()({"image": z, "text": 3 * z})
    tensor(0.)
    """

    options: dict[str, object] = {}  # noqa: RUF012
    anchor: str | None = None  # a modality that has to be there
    modalities: int | None = None  # the number that the objective is for
    averaged = False  # whether the loss is the mean of its terms, and not their sum
    term_weights: Mapping[str, float] = {}  # of terms by name, or by what is before its first `/`; 1 if not named

    def problem(self, names: Sequence[str]) -> str | None:
        """One line on why batches of these modalities cannot be used, or None."""
        if len(names) < 2 or (self.modalities is not None and len(names) != self.modalities):
            return f"{type(self).__name__}: {self.modalities or 'at least 2'} modalities are needed, got {list(names)}"
        if self.anchor is not None and self.anchor not in names:
            return f"{type(self).__name__}: the anchor {self.anchor!r} is not among the modalities {list(names)}"
        return None

    def check_modalities(self, names: Sequence[str]) -> None:
        """For a trainer, before its first batch.

        Raises:
            InputError: batches of these modalities cannot be used.
        """
        if wrong := self.problem(list(names)):
            raise InputError(wrong)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of a checked batch by name, scalars, before their weights."""
        raise NotImplementedError

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The loss from what `parts` returned: their weighted sum or mean, unless an objective says otherwise. Scalar."""
        values = torch.stack([self.term_weights.get(name.partition("/")[0], 1.0) * part for name, part in parts.items()])
        return values.mean() if self.averaged else values.sum()

    @full_precision
    def parts(self, embeddings: Embeddings, masks: Masks | None = None) -> dict[str, Tensor]:
        """The terms by name, for a log, before their weights; arguments and errors as in `batch.prepare`."""
        return self.terms(prepare(embeddings, masks, self.problem(list(embeddings))))

    def forward(self, embeddings: Embeddings, masks: Masks | None = None) -> Tensor:
        """Scalar, from (B, d) embeddings a modality and bool (B,) masks for those that some samples lack."""
        return self.total(self.parts(embeddings, masks))

    def after_step(self) -> None:
        """For a trainer, after the optimiser's step: brings learnt temperatures back into their range, as CLIP does."""
        for module in self.modules():
            if isinstance(module, Temperature):
                module.clamp()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class Temperature(nn.Module):
    """The factor 1 / tau of the logits: fixed, a caller's tensor, or learnt as its logarithm.

    A learnt one is held at `most` as in CLIP: the parameter itself is clamped, after the step (`Objective.after_step`) or, in a
    loop that does not call it, before the next use; its gradient is never cut off. It is the same on every process.
    """

    def __init__(self, tau: float | Tensor, learnable: bool, most: float = 100.0):
        super().__init__()
        self.tau, self.most = tau, math.log(most)
        self.log_scale: nn.Parameter | None = None
        if learnable:
            start = -math.log(float(tau))
            if start > self.most:
                note("clamped", f"a learnable tau starts at {1 / most:g}, its least value, not at {float(tau):g}")
            self.log_scale = nn.Parameter(torch.tensor(min(start, self.most)))

    @torch.no_grad()
    def clamp(self) -> None:
        if self.log_scale is not None:
            self.log_scale.data.clamp_(max=self.most)  # data: a graph that holds the parameter stays valid

    def forward(self, like: Tensor) -> Tensor:
        if self.log_scale is not None:
            self.clamp()
            return ranks.shared(self.log_scale).to(like.device, like.dtype).exp()
        if isinstance(self.tau, Tensor):
            return 1 / self.tau.to(like.device, like.dtype).reshape(())
        return like.new_tensor(1 / self.tau)
