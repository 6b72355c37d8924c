"""A decoder of one's own, in one file: a linear map from the embedding to a small picture.

    import linear_decoder                                   # makes it known
    starter = unialign_gen.load("starter")
    decoder = linear_decoder.LinearPipeline(starter.aligner, linear_decoder.Linear(256), starter.embed_scale)
    decoder.save_pretrained("mine")
    unialign_gen.load("mine")(text="a red car").images[0]

It draws nothing worth seeing until `Linear` is trained. A diffusion decoder has diffusers' own pipeline in the place of
`DiffusionPipeline`, and its `sample` calls that: see `unialign_gen/pipelines/kandinsky.py`.
"""

from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from unialign_gen import pipelines
from unialign_gen.aligner import Aligner
from unialign_gen.pipelines import EmbedScale
from unialign_gen.pipelines.conditions import Conditions
from unialign_gen.pipelines.prompted import PromptedPipeline
from unialign_gen.request import Request


class Linear(ModelMixin, ConfigMixin):
    """Embeddings (B, embed_dim) to pictures (B, 3, side, side) in [-1, 1]."""

    @register_to_config
    def __init__(self, embed_dim: int = 256, side: int = 16):
        super().__init__()
        self.map = nn.Linear(embed_dim, 3 * side * side)

    def forward(self, embeddings: Tensor) -> Tensor:
        side = self.config.side
        return self.map(embeddings).reshape(-1, 3, side, side).tanh()


class LinearPipeline(PromptedPipeline, DiffusionPipeline):
    """Any prompt to a small picture, by one matrix."""

    def __init__(
        self,
        aligner: Aligner,
        decoder: Linear,
        embed_scale: EmbedScale,
        prior: Any = None,
        default_steps: int = 1,
        default_guidance: float = 1.0,
    ):
        super().__init__()
        self.register_modules(aligner=aligner, decoder=decoder, embed_scale=embed_scale, prior=prior)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)

    _optional_components = ["prior"]  # noqa: RUF012  as diffusers writes it

    @property
    def decoder_dtype(self) -> torch.dtype:
        return self.decoder.dtype

    def sample(self, request: Request, conditions: Conditions) -> Any:
        pictures = self.decoder(conditions.image_embeds)
        return VaeImageProcessor().postprocess(pictures, output_type=request.output_type)


pipelines.register(LinearPipeline)
