"""The starter's first decoder: Kandinsky 2.2's own UNet classes at small size.

The UNet sees image embeddings scaled to `embed_norm`, a tenth of them replaced by the unconditional embedding; the others
are drawn near their pictures' own (`diffusion.Neighbours`).

It has twice the latent channels at its output, as `KandinskyV22Pipeline` expects; the second half (a learned variance there)
is held at zero, which DDPM's `learned_range` reads as the middle of its range.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from .diffusion import DROP, Conditions, Neighbours, Takes


def build(
    embed_dim: int,
    latent_channels: int,
    sample_size: int,
    channels: tuple[int, ...],
    attention_from: int,
    layers: int = 1,
    cross_dim: int = 128,
) -> UNet2DConditionModel:
    """Attention blocks on levels `attention_from` and below; the levels above are plain residual blocks."""
    n = len(channels)
    attend = [level >= attention_from for level in range(n)]
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=2 * latent_channels,
        down_block_types=tuple("SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attend),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=tuple("SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attend)),
        block_out_channels=channels,
        layers_per_block=layers,
        norm_num_groups=16,
        attention_head_dim=32,
        cross_attention_dim=cross_dim,
        encoder_hid_dim=embed_dim,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
    )


class Denoiser(nn.Module):
    """The UNet with its embeddings as an argument of its own; the variance half stays zero and is left out."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet
        self.channels = unet.config.in_channels
        with torch.no_grad():
            unet.conv_out.weight[self.channels :].zero_()
            unet.conv_out.bias[self.channels :].zero_()

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
        return self.unet(noisy, t, None, added_cond_kwargs={"image_embeds": embeds}).sample[:, : self.channels]


def conditions(neighbours: Neighbours, unconditional: Tensor, embed_norm: float) -> Conditions:
    """Embeddings near those of the pictures, at decoder scale; a tenth are the unconditional one (1, d)."""

    def draw(rows: Tensor, generator: torch.Generator) -> tuple[Tensor]:
        given = neighbours.draw(rows, generator)
        given[torch.rand(len(rows), generator=generator) < DROP] = unconditional
        return (given * embed_norm,)

    return draw


def takes(embed_norm: float) -> Takes:
    """Unit embeddings (B, d) at decoder scale."""
    return lambda embeds, generator: (embeds * embed_norm,)


def nothing(unconditional: Tensor, embed_norm: float, count: int) -> tuple[Tensor]:
    """The unit unconditional embedding (1, d), `count` times, at decoder scale."""
    return ((unconditional * embed_norm).repeat(count, 1),)
