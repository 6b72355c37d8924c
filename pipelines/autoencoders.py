"""One autoencoder in two of diffusers' classes: Kandinsky's `VQModel` and the `AutoencoderKL` that Stable UnCLIP takes."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL, VQModel

LATENT_NOISE = 0.1  # standard deviation of the noise that the starter's latents are trained with


@torch.no_grad()
def autoencoder_kl(movq: VQModel) -> AutoencoderKL:
    """movq's weights, in fp32, as an `AutoencoderKL` whose means are its latents; the codebook is left behind.

    The two classes have the same encoder and decoder. The variance is constant, that of `LATENT_NOISE`.
    """
    config = movq.config
    names = (
        *("in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block"),
        *("latent_channels", "norm_num_groups", "mid_block_add_attention"),
    )
    vae = AutoencoderKL(**{name: config[name] for name in names}, scaling_factor=1.0)
    channels = config.latent_channels
    mine, theirs = vae.state_dict(), movq.state_dict()
    doubled = {"encoder.conv_out.weight", "encoder.conv_out.bias", "quant_conv.weight", "quant_conv.bias"}
    for name, value in mine.items():
        if name in doubled:
            value.zero_()
            own = value[:channels] if value.ndim == 1 else value[:channels, : theirs[name].shape[1]]
            own.copy_(theirs[name])
        else:
            value.copy_(theirs[name])
    vae.quant_conv.bias[channels:] = 2 * math.log(LATENT_NOISE)
    return vae.eval()
