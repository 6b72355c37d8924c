"""What every tower offers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Tower(nn.Module):
    """A frozen backbone: prepared input to features.

    Attributes:
        dim: width of the features.
        config: what `towers.load_tower` needs to build it again; `tower` names its kind.
    """

    dim: int
    config: dict[str, Any]

    def prepare(self, inputs: list[Any]) -> Tensor:
        """Raw inputs of the tower's modality, as one batch for `forward`."""
        raise TypeError(f"{type(self).__name__} does not say how to prepare its inputs")

    def compute_buffers(self) -> None:
        """Fills the buffers that no weight file holds; most towers have none."""

    def extra_files(self) -> dict[str, str]:
        """Text files that belong to the tower, by name, such as a tokenizer."""
        return {}
