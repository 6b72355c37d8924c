"""The recipe's steps around movq: training it, caching latents, and the features of latents that a decoder's loss compares."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from unialign_gen.encoders import load_encoder
from unialign_gen.errors import InputError

from . import autoencoder, image_space, latent_features, manifest
from .known import DECODER_TIERS, anchors, select

LATENT_CHANNELS = 8
AUTOENCODER = (16, 32, 64, 128)
SHARPEN_SIDE = 192  # pixels at which the image encoder compares pictures: between their own 128 and its 224


def train_autoencoder(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains movq on tier A, and writes it when this sitting ends."""
    rows = select(root, "picture", DECODER_TIERS)
    early = autoencoder.EncoderFeatures(load_encoder(root / "encoders" / "image").net, stages=3)
    model = autoencoder.train(
        manifest.pixels(root, rows),
        early,
        root / "autoencoder",
        model=autoencoder.build(AUTOENCODER, LATENT_CHANNELS),
        samples=samples,
        minutes=minutes,
        last=last,
    )
    model.save_pretrained(root / "autoencoder" / "movq")


@torch.no_grad()
def cache_latents(root: Path) -> None:
    """Latents of the decoder's training pictures, in fp16; fits movq's codebook to them."""
    rows = select(root, "picture", DECODER_TIERS)
    model = VQModel.from_pretrained(root / "autoencoder" / "movq").eval()
    latents = autoencoder.encode(model, manifest.pixels(root, rows))
    (root / "features").mkdir(exist_ok=True)
    save_file({"latents": latents}, root / "features" / "latents.safetensors")
    autoencoder.fit_codebook(model, latents).save_pretrained(root / "autoencoder" / "movq")


def sharpen_autoencoder(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains movq's decoding half further, on the cached latents, and writes it when this sitting ends."""
    rows = select(root, "picture", DECODER_TIERS)
    folder = root / "autoencoder"
    model = autoencoder.sharpen(
        manifest.pixels(root, rows),
        cached(root),
        manifest.weights_by_name(rows),
        autoencoder.EncoderFeatures(load_encoder(root / "encoders" / "image").net, side=SHARPEN_SIDE),
        folder,
        model=VQModel.from_pretrained(folder / "movq"),
        samples=samples,
        minutes=minutes,
        last=last,
    )
    model.to(memory_format=torch.contiguous_format).save_pretrained(folder / "movq")


def cached(root: Path) -> Tensor:
    """The latents (N, C, h, w) that `cache_latents` wrote.

    Raises:
        InputError: it did not.
    """
    file = root / "features" / "latents.safetensors"
    if not file.exists():
        raise InputError(f"{file} is not there: run `latents` first")
    return load_file(file)["latents"]


def train_latent_features(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains the network whose features the decoders' loss compares, on tier A."""
    rows = select(root, "picture", DECODER_TIERS)
    latents, folder = cached(root), root / "latent_features"
    model = latent_features.train(
        latents, anchors(root, rows), manifest.weights_by_name(rows), folder, samples=samples, minutes=minutes, last=last
    )
    save_file(model.state_dict(), folder / "model.safetensors")


def perceptual(root: Path, latents: Tensor) -> latent_features.LatentFeatures | None:
    """The network that `train_latent_features` wrote, if it did."""
    file = root / "latent_features" / "model.safetensors"
    if not file.exists():
        return None
    model = latent_features.LatentFeatures(latents.shape[1], image_space.EMBED_DIM)
    model.load_state_dict(load_file(file))
    return model.to(memory_format=torch.channels_last).eval().requires_grad_(False)
