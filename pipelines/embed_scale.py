"""What a decoder expects of its image embeddings; kept with the decoder."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from unialign_gen.mixing import to_decoder


class EmbedScale(ModelMixin, ConfigMixin):
    """The norm of the embeddings a decoder was trained on, and its unconditional embedding.

    Args:
        embed_dim: width of the embeddings.
        embed_norm: mean norm of raw image embeddings over reference pictures.
        embed_norm_std: their spread; 0 where the space itself is a sphere.

    Buffer `negative_image_embeds` (1, embed_dim): for Kandinsky the embedding of an all-zero normalised picture, at
    decoder scale, so that guidance needs no vision encoder.

    Example:
        >>> scale = EmbedScale(embed_dim=2, embed_norm=10.0)
        >>> scale(torch.tensor([[0.6, 0.8]]))
        tensor([[6., 8.]])
    """

    negative_image_embeds: Tensor

    @register_to_config
    def __init__(self, embed_dim: int = 256, embed_norm: float = 16.0, embed_norm_std: float = 0.0):
        super().__init__()
        self.register_buffer("negative_image_embeds", torch.zeros(1, embed_dim))

    @property
    def embed_norm(self) -> float:
        return float(self.config["embed_norm"])

    def forward(self, embeddings: Tensor) -> Tensor:
        """Unit embeddings (B, embed_dim) at decoder scale."""
        return to_decoder(embeddings, self.embed_norm)
