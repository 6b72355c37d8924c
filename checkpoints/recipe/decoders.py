"""The starter's decoders, two of them trained for likelihood alone: denoisers of movq's latents that see an image embedding.

The target is v (Salimans & Ho 2022) under a cosine schedule rescaled to zero terminal SNR (Lin et al. 2023), so that white
stays white. No network that reads drawings takes part in the loss: what such a network likes is one picture a thing.

`kandinsky` is Kandinsky 2.2's UNet at small size. It has twice the latent channels at its output, as `KandinskyV22Pipeline`
expects; the second half (a learned variance there) is held at zero, which DDPM's `learned_range` reads as the middle of its
range. `stable-unclip` is Stable UnCLIP's: the embedding is noised to a random level (as published), joined with a sinusoidal
embedding of that level and added to the time embedding; captions enter by cross-attention, three in ten, so that it needs none.
For both, zeros in place of the embedding mean no condition. `kandinsky-distilled` is the first, made fast, see `distil`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel, VQModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from diffusers.training_utils import compute_snr
from diffusers.utils import make_image_grid
from PIL import Image
from torch import Tensor, nn
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.pipelines import EmbedScale, UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline
from unialign_gen.pipelines.autoencoders import autoencoder_kl

from . import distil, loop, pack
from .autoencoder import encode
from .files import digest, once, save_array
from .rows import numbered

EMBED_NORM = 16.0  # of the embeddings at decoder scale
CROSS_DIM = 128
DROP = 0.1  # the share of conditions that are dropped, for classifier-free guidance (Ho & Salimans 2022)
CAPTIONED, CAPTIONS, PIECES, LENGTH = 0.3, 4, 4096, 16
SNR_LIMIT, LR = 5.0, 8e-4
SHEET, STEPS = 40, 20  # pictures on the sheet, each beside what a decoder draws of its embedding, and steps of each
KINDS = {"plain": 0.45, "recoloured": 0.3, "composition": 0.25}  # shares of what is drawn in training
# the noise levels that the decoders are trained on and sampled by
SCHEDULER = DDIMScheduler(
    beta_schedule="squaredcos_cap_v2",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    clip_sample=False,
)


class Decoder(StrEnum):
    kandinsky = "kandinsky"
    distilled = "kandinsky-distilled"
    stable_unclip = "stable-unclip"


class Neighbours:
    """Draws, for each picture, the embedding that stands for it in training.

    A prompt is rarely a training picture: unseen pictures, texts and sounds land near what they name, not on it. So two thirds
    of the embeddings carry noise on the sphere, and three in ten move towards that of another picture of the same thing in the
    same colour: of any colour, they would teach the decoder to draw any.

    Args:
        embeddings: unit vectors (N, d).
        rows: of each picture the `group` of those that may stand for each other.
    """

    def __init__(self, embeddings: Tensor, rows: Sequence[dict[str, Any]]):
        group = numbered([row["group"] for row in rows]).to(embeddings.device)
        sizes = torch.bincount(group)
        self.embeddings, self.order = embeddings, group.argsort(stable=True)  # rows, group by group
        self.first, self.size = (sizes.cumsum(0) - sizes)[group], sizes[group]

    def draw(self, rows: Tensor, generator: torch.Generator, noise: float = 0.4, step: float = 0.5) -> Tensor:
        """Unit vectors (B, d) for pictures (B,), with at most so much noise and so large a step."""
        device = self.embeddings.device
        chance = torch.rand(4, len(rows), 1, generator=generator, device=device)
        other = self.order[self.first[rows] + (chance[0, :, 0] * self.size[rows]).long()]
        share = torch.where(chance[1] < 0.3, step * chance[2], 0.0)
        z = F.normalize(torch.lerp(self.embeddings[rows], self.embeddings[other], share), dim=1)
        size = noise * (1.5 * chance[3] - 0.5).clamp(min=0)  # a third stay as they are
        moved = torch.randn(z.shape, generator=generator, device=device) / z.shape[1] ** 0.5
        return F.normalize(z + size * moved, dim=1)


class Denoiser(nn.Module):
    """A UNet with its conditions as arguments: `forward(noisy, t, *conditions)` gives v (B, C, h, w).

    `conditions(embeds, dropped, generator, rows)` makes them for unit embeddings (B, d) of training pictures `rows` (B,), none
    where `dropped` (B, 1). The UNet has three levels of widths `width` times 1, 2, 3, and attention on the lower two.

    Args:
        blocks: names of blocks without and with attention, for `Down` and `Up`, and of the one between these.
        own: what else the UNet is made with.
    """

    def __init__(self, blocks: tuple[str, str, str], latent_channels: int, side: int, width: int, **own: Any):
        super().__init__()
        plain, cross, between = blocks
        kinds = (plain, cross, cross)
        self.unet = UNet2DConditionModel(
            sample_size=side,
            in_channels=latent_channels,
            down_block_types=tuple(kind.format("Down") for kind in kinds),
            mid_block_type=between,
            up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
            block_out_channels=(width, 2 * width, 3 * width),
            layers_per_block=1,
            norm_num_groups=16,
            cross_attention_dim=CROSS_DIM,
            resnet_time_scale_shift="scale_shift",
            **own,
        )

    def write(self, folder: Path) -> None:
        """Each part in a folder of its own, in fp16, which it is from then on."""
        for name, part in self.named_children():
            part.cpu().half().save_pretrained(folder / name)  # type: ignore[operator]


class KandinskyDenoiser(Denoiser):
    """Takes embeddings at the decoder's scale."""

    def __init__(self, embed_dim: int, latent_channels: int, side: int, width: int):
        blocks = "Resnet{}sampleBlock2D", "SimpleCrossAttn{}Block2D", "UNetMidBlock2DSimpleCrossAttn"
        image = {"encoder_hid_dim": embed_dim, "encoder_hid_dim_type": "image_proj", "addition_embed_type": "image"}
        shape = {"out_channels": 2 * latent_channels, "attention_head_dim": 32}
        super().__init__(blocks, latent_channels, side, width, **shape, **image)
        for parameter in self.unet.conv_out.parameters():
            parameter.data[latent_channels:] = 0

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
        return self.unet(noisy, t, None, added_cond_kwargs={"image_embeds": embeds}).sample[:, : noisy.shape[1]]

    def conditions(self, embeds: Tensor, dropped: Tensor, generator: torch.Generator, rows: Tensor) -> tuple[Tensor, ...]:
        return (torch.where(dropped, 0.0, embeds) * EMBED_NORM,)


class UnclipDenoiser(Denoiser):
    """Takes noised embeddings with their noise level, and tokens of captions, at most four of each training picture."""

    wordless: Tensor
    tokens: Tensor

    def __init__(
        self, embed_dim: int, latent_channels: int, side: int, width: int, words: Any, captions: Sequence[Sequence[str]]
    ):
        blocks = "{}Block2D", "CrossAttn{}Block2D", "UNetMidBlock2DCrossAttn"
        image = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * embed_dim}
        heads = tuple(width * times // 32 for times in (1, 2, 3))  # this class takes their number by the name of their width
        shape = {"out_channels": latent_channels, "attention_head_dim": heads}
        super().__init__(blocks, latent_channels, side, width, use_linear_projection=True, **shape, **image)
        self.tokenizer = words
        size = {"hidden_size": CROSS_DIM, "intermediate_size": 4 * CROSS_DIM, "max_position_embeddings": LENGTH}
        special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        config = CLIPTextConfig(vocab_size=len(words), num_hidden_layers=2, num_attention_heads=4, **size, **special)
        self.text_encoder = CLIPTextModel(config)
        flat = [(list(cs) * CAPTIONS)[:CAPTIONS] for cs in captions]
        ids = self.ids([""] + [c for cs in flat for c in cs])
        self.register_buffer("wordless", ids[:1], persistent=False)
        self.register_buffer("tokens", ids[1:].view(len(flat), CAPTIONS, LENGTH).short(), persistent=False)
        self.noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")

    def ids(self, texts: list[str]) -> Tensor:
        return self.tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids

    def forward(self, noisy: Tensor, t: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        return self.unet(noisy, t, self.text_encoder(ids)[0], class_labels=labels).sample

    def conditions(self, embeds: Tensor, dropped: Tensor, generator: torch.Generator, rows: Tensor) -> tuple[Tensor, ...]:
        """Noise levels are the squares of even ones: most are low, as they are in use."""
        count, width, device = *embeds.shape, embeds.device
        level = (torch.rand(count, generator=generator, device=device).square() * 1000).long()
        noise = torch.randn(embeds.shape, generator=generator, device=device)
        moved = self.noising.add_noise(embeds * EMBED_NORM, noise, level)
        labels = torch.cat([moved, get_timestep_embedding(level, width, flip_sin_to_cos=True, downscale_freq_shift=0)], 1)
        chance = torch.rand(2, count, 1, generator=generator, device=device)
        picked = self.tokens[rows, (chance[0, :, 0] * CAPTIONS).long()].long()
        ids = torch.where((chance[1] < CAPTIONED) & ~dropped, picked, self.wordless)
        return torch.where(dropped, 0.0, labels), ids


def tokenizer(folder: Path, captions: Sequence[str]) -> Any:
    """The tokenizer in `folder`: lower-case WordPiece of 4096 pieces for texts of up to 16, fitted to captions the first time.

    Fitted again it would number its pieces in another way.
    """

    def fit(part: Path) -> None:
        BertTokenizer(model_max_length=LENGTH).train_new_from_iterator([sorted(captions)], PIECES).save_pretrained(part)

    return PreTrainedTokenizerFast.from_pretrained(once(folder, fit))


def pipeline(decoder: Decoder, movq: VQModel, embed_dim: int, **parts: Any) -> Any:
    """The package's pipeline of a decoder: `unet`, of stable-unclip `text_encoder` and `tokenizer`, and what else it takes."""
    shared = {
        "aligner": Aligner(embed_dim, ()),
        "scheduler": SCHEDULER,
        "embed_scale": EmbedScale(embed_dim, EMBED_NORM, 0.0),  # zeros for no prompt, as the decoders learn
    }
    if decoder is not Decoder.stable_unclip:
        return UniAlignKandinskyPipeline(movq=movq, **shared | parts)
    shared |= {
        "vae": autoencoder_kl(movq),
        "image_normalizer": StableUnCLIPImageNormalizer(embed_dim),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False),
    }
    return UniAlignStableUnCLIPPipeline(**shared | parts)


def velocity_loss(
    model: nn.Module,
    x: Tensor,
    conditions: Sequence[Tensor],
    generator: torch.Generator,
    teacher: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Squared error of v for clean latents (B, C, h, w) at stratified noise levels.

    The target is v itself or, with a `teacher`, what that makes of the noisy latents and their levels: the mean of v, where
    a picture and its noise are one draw of it (knowledge distillation, Hinton et al. 2015).

    Weighted by min(SNR + 1, 5) / (SNR + 1): Min-SNR (Hang et al. 2023) where there is little noise; at much noise v's own
    weight stays, since with zero terminal SNR the first step decides a picture's colours.
    """
    t = (torch.arange(len(x), device=x.device) + torch.rand(len(x), generator=generator, device=x.device)) / len(x)
    t = (t * SCHEDULER.config.num_train_timesteps).long()
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    noisy = SCHEDULER.add_noise(x, noise, t).contiguous(memory_format=torch.channels_last)
    target = teacher(noisy, t) if teacher else SCHEDULER.get_velocity(x, noise, t)
    error = (model(noisy, t, *conditions).float() - target).square()
    snr = compute_snr(SCHEDULER, t)
    return (error.flatten(1).mean(1) * (snr + 1).clamp(max=SNR_LIMIT) / (snr + 1)).mean()


def sampling_weights(rows: Sequence[dict[str, Any]]) -> Tensor:
    """(N,), with sum 1: things count by the root of how many pictures they have, concepts three times, kinds by `KINDS`."""
    drawn = ((f"{row['kind']}|{row['thing']}", row["kind"], 3.0 if row["concept"] else 1.0) for row in rows)
    return loop.sampling_weights(drawn, KINDS)


def train(
    file: Path,
    out: Path,
    decoder: Decoder,
    *,
    device: str = "cpu",
    batch: int | None = None,
    width: int = 64,
    taught: bool = False,
    **sitting: Any,
) -> None:
    """Trains a decoder from where `out` left it.

    Writes `out/movq`, and every five minutes (on CUDA one) `out/<decoder>` with the averaged weights and a sheet of drawings.

    Args:
        file: what `pack.write` wrote.
        decoder: without a state it starts from weights in `out/<decoder>`, others than the first else from its blocks.
        device, batch, width, taught: as the command line explains them.
        sitting: as in `loop.train`.

    Raises:
        InputError: the pack cannot be read, `out` was trained on another image space, or there is no first decoder to learn
            from.
    """
    torch.manual_seed(0)
    packed, folder = pack.read(file), out / decoder.value
    space = folder / "space.txt"
    if space.exists() and space.read_text() != packed.space:
        raise InputError(f"{folder} was trained on another image space than this pack is of: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    space.write_text(packed.space)
    kept = out / f"latents-{digest(file.read_bytes())}.npy"
    if not kept.exists():
        movq = packed.movq.to(device)
        with loop.fast(device):
            made = [encode(movq, part.to(device)).half().cpu() for part in packed.pictures.split(1024)]
        save_array(kept, torch.cat(made).numpy())
    latents, embeds = torch.from_numpy(np.load(kept)).to(device), packed.embeddings.to(device)
    sizes, batch = (embeds.shape[1], latents.shape[1], latents.shape[2], width), batch or (64 if device == "cpu" else 512)
    model: Any
    if decoder is not Decoder.stable_unclip:
        model, words = KandinskyDenoiser(*sizes), {}
    else:
        captions = [row["captions"] for row in packed.rows]
        words = {"tokenizer": tokenizer(folder / "tokenizer", [c for cs in captions for c in cs])}
        model = UnclipDenoiser(*sizes, words=words["tokenizer"], captions=captions)
    for name, part in model.named_children():
        first = next((f / name for f in (folder, out / Decoder.kandinsky) if (f / name).exists()), None)
        if first is not None and not (folder / loop.STATE).exists():
            theirs = type(part).from_pretrained(first).state_dict()
            for key, mine in part.state_dict().items():  # rows beyond a tensor's own are left out
                found = theirs.get(key, mine)
                if found.shape[1:] == mine.shape[1:] and len(found) >= len(mine):
                    mine.copy_(found[: len(mine)])
    teacher: Any = None
    near, weights = Neighbours(embeds, packed.rows), sampling_weights(packed.rows).to(device)
    jumps: distil.Jumps | None = None
    if taught or decoder is Decoder.distilled:
        teaching = out / Decoder.kandinsky / "unet"
        if not teaching.exists():
            raise InputError(f"{out} has no trained kandinsky decoder to learn from: train that first")
        teacher = KandinskyDenoiser(*sizes)
        teacher.unet = UNet2DConditionModel.from_pretrained(teaching)
        teacher.requires_grad_(False).to(device, memory_format=torch.channels_last)
    if decoder is Decoder.distilled:

        def prompted(count: int, generator: torch.Generator) -> Tensor:
            rows = torch.multinomial(weights, count, replacement=True, generator=generator)
            return near.draw(rows, generator) * EMBED_NORM

        plan = repr((distil.STEPS, distil.JUMP, distil.GUIDANCE, distil.CHUNK)).encode()
        taught_by = (part.read_bytes() for part in teaching.glob("*.safetensors"))
        ways = folder / f"ways-{digest(file.read_bytes(), plan, *taught_by)}"
        jumps = distil.Jumps(ways, teacher, SCHEDULER, latents.shape[1:], prompted)
    forward: Any = torch.compile(model) if device != "cpu" else model
    shown = torch.multinomial(weights, SHEET, generator=torch.Generator(device).manual_seed(0))
    once(out / "movq", packed.movq.save_pretrained)

    def loss(done: int, generator: torch.Generator) -> Tensor:
        if jumps:
            return jumps.loss(forward, batch, generator)
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        dropped = torch.rand(batch, 1, generator=generator, device=device) < DROP
        seen = near.draw(rows, generator)

        def mean(noisy: Tensor, t: Tensor) -> Tensor:
            return teacher(noisy, t, *teacher.conditions(seen, dropped, generator, rows)).float()

        conditions = model.conditions(seen, dropped, generator, rows)
        return velocity_loss(forward, latents[rows].float(), conditions, generator, mean if taught else None)

    def write(averaged: Denoiser) -> None:
        drawing = pipeline(decoder, packed.movq, embeds.shape[1], **dict(averaged.named_children()), **words).to(device)
        drawing.set_progress_bar_config(disable=True)
        steps, guidance = (distil.STEPS, 1) if jumps else (STEPS, 3)
        asked = {"seed": 0, "num_inference_steps": steps, "guidance_scale": guidance}
        drawn = drawing(image_embeds=EMBED_NORM * embeds[shown], **asked).images
        pairs = zip(map(Image.fromarray, packed.pictures[shown.cpu()].numpy()), drawn, strict=True)
        sheet = make_image_grid([picture for pair in pairs for picture in pair], rows=SHEET // 5, cols=10)
        sheet.save(folder / "sheet.png")
        averaged.write(folder)

    every = 300 if device == "cpu" else 60
    loop.train(model, loss, write, folder, lr=LR, batch=batch, device=device, every=every, **sitting)
