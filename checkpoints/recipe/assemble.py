"""Puts the trained parts together as the checkpoint that ships: fp16 safetensors, cards beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, VQModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from unialign_gen.aligner import Aligner
from unialign_gen.encoders import load_encoder
from unialign_gen.heads import Head, load_head, save_head
from unialign_gen.pipelines import EmbeddingPrior, EmbedScale, UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline
from unialign_gen.pipelines.autoencoders import autoencoder_kl

from . import diffusion
from .image_space import EMBED_DIM
from .known import bank, spread
from .recognition import eighth

EMBED_NORM = EMBED_DIM**0.5  # unit variance a component; the space is a sphere, so the spread is zero
STEPS, GUIDANCE = 12, 3.0  # of the names of concepts fewer are drawn recognisably at a guidance of 2 or 4
# Shrinkage and temperature chosen by how many prompts of other makers, beyond those that `eval concepts` asks for, end nearest
# to their concept: much alike from 0.02 to 0.1 and from 4 to 16. Strength by what is recognised of what is drawn, of prompts
# that `eval concepts` asks for too, against how much of its colours a prompt keeps
SHRINKAGE, TEMPERATURE, STRENGTH = 0.05, 8.0, 0.6
SMALL = ("README.md", "ATTRIBUTION.tsv")


def grey_embedding(root: Path) -> Tensor:
    """The unconditional embedding (1, d): that of a picture whose normalised pixels are all zero, as for Kandinsky 2.2."""
    encoder, head = load_encoder(root / "encoders" / "image"), load_head(root / "image_space")
    with torch.no_grad():
        pixels = encoder.prepare([Image.new("RGB", (128, 128), (127, 127, 127))]).zero_()
        return nn.functional.normalize(head(encoder(pixels)), dim=1)


def write_aligner(root: Path, heads: dict[str, Head], out: Path) -> None:
    """Encoders with their heads into `out`, a folder for `Aligner.from_pretrained`."""
    for kind, head in heads.items():
        shutil.copytree(root / "encoders" / kind, out / kind)
        save_head(eighth(head), out / kind)
    config = {"_class_name": "Aligner", "embed_dim": EMBED_DIM, "encoders": list(heads)}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def whitening(embeds: Tensor, things: Sequence[str]) -> Tensor:
    """W (d, d) of W W^T, the inverse of `spread`: what pictures of one thing differ in counts for less."""
    return torch.linalg.cholesky(torch.linalg.inv(spread(embeds, things, SHRINKAGE)))


def prior(embeds: Tensor, things: Sequence[str]) -> EmbeddingPrior:
    """The prior over what pictures with unit embeddings (N, d) show, things that are seen often likelier."""
    points = bank(embeds, things)
    made = EmbeddingPrior(points.shape[1], len(points), TEMPERATURE, STRENGTH)
    made.points.copy_(points)
    made.log_counts.copy_(torch.tensor([len(rows) for rows in diffusion.by_thing(things).values()]).log())
    made.whitening.copy_(whitening(embeds, things))
    return made


def starter(
    root: Path,
    heads: dict[str, Head],
    unet: UNet2DConditionModel,
    movq: VQModel,
    known: EmbeddingPrior,
    out: Path,
) -> None:
    """Writes the whole starter to `out`, in place of the one that is there; cards are kept."""
    scale = EmbedScale(EMBED_DIM, EMBED_NORM, 0.0)
    scale.negative_image_embeds.data.copy_(grey_embedding(root) * EMBED_NORM)
    part = out.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    write_aligner(root, heads, part / "aligner")
    pipeline = UniAlignKandinskyPipeline(
        aligner=Aligner.from_pretrained(part / "aligner"),
        unet=unet.half(),
        scheduler=diffusion.scheduler(),
        movq=movq.half(),
        embed_scale=scale,
        prior=known.half(),
        default_steps=STEPS,
        default_guidance=GUIDANCE,
    )
    pipeline.save_pretrained(part)
    forget_folders(part)
    for name in SMALL:
        if (out / name).exists():
            shutil.copy(out / name, part / name)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def second_decoder(unclip: Path, movq: VQModel, known: EmbeddingPrior, out: Path) -> None:
    """Writes Stable UnCLIP's half of the starter to `out`; its encoders, prior and autoencoder are those beside it."""
    from .unclip import noising

    pipeline = UniAlignStableUnCLIPPipeline(
        aligner=Aligner(EMBED_DIM, ()),
        embed_scale=EmbedScale(EMBED_DIM, EMBED_NORM, 0.0),
        prior=known,
        image_normalizer=StableUnCLIPImageNormalizer(EMBED_DIM),
        image_noising_scheduler=noising(),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(unclip / "tokenizer"),
        text_encoder=CLIPTextModel.from_pretrained(unclip / "text_encoder").half(),
        unet=UNet2DConditionModel.from_pretrained(unclip / "unet").half(),
        scheduler=diffusion.scheduler(),
        vae=autoencoder_kl(movq.float()).half(),
        default_steps=STEPS,
        default_guidance=GUIDANCE,
    )
    shutil.rmtree(out, ignore_errors=True)
    pipeline.save_pretrained(out)
    for shared in ("aligner", "prior", "vae"):
        shutil.rmtree(out / shared)
    forget_folders(out)


def forget_folders(checkpoint: Path) -> None:
    """Takes out of the configurations where a model was loaded from, which diffusers and transformers note."""
    for file in checkpoint.glob("*/*.json"):
        config = json.loads(file.read_text())
        if isinstance(config, dict) and {"_name_or_path", "name_or_path"} & set(config):
            config = {k: v for k, v in config.items() if k not in ("_name_or_path", "name_or_path")}
            file.write_text(json.dumps(config, indent=2) + "\n")
