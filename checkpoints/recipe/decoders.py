"""The starter's two decoders, trained for likelihood alone: denoisers of movq's latents that see an image embedding.

The target is v (Salimans & Ho 2022) under a cosine schedule rescaled to zero terminal SNR (Lin et al. 2023), so that white
stays white. No network that reads drawings takes part in the loss: what such a network likes is one picture a thing.

`kandinsky` is Kandinsky 2.2's UNet at small size. It has twice the latent channels at its output, as `KandinskyV22Pipeline`
expects; the second half (a learned variance there) is held at zero, which DDPM's `learned_range` reads as the middle of its
range. `stable-unclip` is Stable UnCLIP's: the embedding is noised to a random level (as published), joined with a sinusoidal
embedding of that level and added to the time embedding; captions enter by cross-attention, three in ten, so that it needs none.
For both, zeros in place of the embedding mean no condition.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel, VQModel
from diffusers.models.embeddings import get_timestep_embedding
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unialign_gen.errors import InputError
from unialign_gen.output import written

from . import pack
from .autoencoder import encode, fit_codebook
from .files import once
from .loop import Muon, average, averaged, bytes_of, fast, loop
from .rows import numbered

EMBED_NORM = 16.0  # of the embeddings at decoder scale
CROSS_DIM = 128
DROP = 0.1  # the share of conditions that are dropped, for classifier-free guidance (Ho & Salimans 2022)
CAPTIONED, CAPTIONS, PIECES, LENGTH = 0.3, 4, 4096, 16
SNR_LIMIT = 5.0
LR, WARM_STEPS = 8e-4, 200
SHEET = 40  # pictures on the sheet that shows how far a decoder has come
KINDS = {"plain": 0.45, "recoloured": 0.3, "composition": 0.25}  # shares of what is drawn in training


class Decoder(StrEnum):
    kandinsky = "kandinsky"
    stable_unclip = "stable-unclip"


def scheduler() -> DDIMScheduler:
    """The noise levels that the decoders are trained on and sampled by."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


@functools.cache
def signal_shares(device: torch.device) -> Tensor:
    """The scheduler's cumulative alphas (1000,)."""
    return scheduler().alphas_cumprod.to(device)


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
        group = numbered([row["group"] for row in rows])
        sizes = torch.bincount(group)
        device = embeddings.device
        self.embeddings = embeddings
        self.order = group.argsort(stable=True).to(device)  # rows, group by group
        self.first, self.size = ((sizes.cumsum(0) - sizes)[group].to(device), sizes[group].to(device))

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


def build_unet(decoder: Decoder, embed_dim: int, latent_channels: int, side: int, width: int) -> UNet2DConditionModel:
    """Three levels of widths `width` times 1, 2, 3; attention on the lower two."""
    channels, attend = tuple(width * times for times in (1, 2, 3)), (False, True, True)
    own: dict[str, Any]
    if decoder is Decoder.kandinsky:
        plain, cross, between = "Resnet{}sampleBlock2D", "SimpleCrossAttn{}Block2D", "UNetMidBlock2DSimpleCrossAttn"
        own = {
            "out_channels": 2 * latent_channels,
            "attention_head_dim": 32,
            "encoder_hid_dim": embed_dim,
            "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image",
        }
    else:
        plain, cross, between = "{}Block2D", "CrossAttn{}Block2D", "UNetMidBlock2DCrossAttn"
        own = {
            "out_channels": latent_channels,
            "attention_head_dim": tuple(c // 32 for c in channels),  # this class takes a number of heads by that name
            "use_linear_projection": True,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 2 * embed_dim,
        }
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=latent_channels,
        down_block_types=tuple((cross if a else plain).format("Down") for a in attend),
        mid_block_type=between,
        up_block_types=tuple((cross if a else plain).format("Up") for a in reversed(attend)),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=CROSS_DIM,
        resnet_time_scale_shift="scale_shift",
        **own,
    )


class KandinskyDenoiser(nn.Module):
    """The UNet with its conditions as arguments: `forward(noisy, t, embeddings at decoder scale)`; v (B, C, h, w)."""

    def __init__(self, embed_dim: int, latent_channels: int, side: int, width: int):
        super().__init__()
        self.unet = build_unet(Decoder.kandinsky, embed_dim, latent_channels, side, width)
        with torch.no_grad():
            self.unet.conv_out.weight[latent_channels:].zero_()
            self.unet.conv_out.bias[latent_channels:].zero_()

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
        return self.unet(noisy, t, None, added_cond_kwargs={"image_embeds": embeds}).sample[:, : noisy.shape[1]]

    def conditions(
        self, embeds: Tensor, dropped: Tensor, generator: torch.Generator, rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """What `forward` takes for unit embeddings (B, d), of training pictures `rows` (B,); none where `dropped` (B, 1)."""
        return (torch.where(dropped, 0.0, embeds) * EMBED_NORM,)

    def write(self, folder: Path) -> None:
        plain(self.unet).save_pretrained(folder / "unet")


class UnclipDenoiser(nn.Module):
    """The UNet and its text encoder: `forward(noisy, t, noised embeddings with their level, tokens)`; v (B, C, h, w).

    Args:
        words: the tokenizer.
        captions: of the training pictures, at most four of each are used.
    """

    wordless: Tensor
    tokens: Tensor

    def __init__(
        self, embed_dim: int, latent_channels: int, side: int, width: int, words: Any, captions: Sequence[Sequence[str]]
    ):
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel

        self.unet = build_unet(Decoder.stable_unclip, embed_dim, latent_channels, side, width)
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
        found = self.tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return found.input_ids  # type: ignore[no-any-return]

    def forward(self, noisy: Tensor, t: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        return self.unet(noisy, t, self.text_encoder(ids)[0], class_labels=labels).sample

    def conditions(
        self, embeds: Tensor, dropped: Tensor, generator: torch.Generator, rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """As above; in training with captions. Noise levels are the squares of even ones: most are low, as they are in use."""
        count, width, device = *embeds.shape, embeds.device
        level = torch.zeros(count, dtype=torch.int64, device=device)
        if rows is not None:
            level = (torch.rand(count, generator=generator, device=device).square() * 1000).long()
        noise = torch.randn(embeds.shape, generator=generator, device=device)
        moved = self.noising.add_noise(embeds * EMBED_NORM, noise, level)
        labels = torch.cat([moved, get_timestep_embedding(level, width, flip_sin_to_cos=True, downscale_freq_shift=0)], 1)
        ids = self.wordless.expand(count, -1)
        if rows is not None:
            chance = torch.rand(2, count, 1, generator=generator, device=device)
            picked = self.tokens[rows, (chance[0, :, 0] * CAPTIONS).long()].long()
            ids = torch.where((chance[1] < CAPTIONED) & ~dropped, picked, ids)
        return torch.where(dropped, 0.0, labels), ids

    def write(self, folder: Path) -> None:
        plain(self.unet).save_pretrained(folder / "unet")
        plain(self.text_encoder).save_pretrained(folder / "text_encoder")


def tokenizer(folder: Path, captions: Sequence[str]) -> Any:
    """The tokenizer in `folder`: lower-case WordPiece of 4096 pieces for texts of up to 16, fitted to captions the first time.

    Fitted again it would number its pieces in another way.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if folder.exists():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(sorted(captions), trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=special))
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    fitted = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=LENGTH, **names)
    once(folder, fitted.save_pretrained)
    return fitted


def plain(model: Any) -> Any:
    """A copy on the processor in fp16 and in plain memory layout."""
    return copy.deepcopy(model).cpu().half().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def borrow(unet: nn.Module, other: nn.Module) -> None:
    """Copies into `unet` what another UNet has under the same name; rows beyond a tensor's own are left out."""
    theirs = other.state_dict()
    for name, mine in unet.state_dict().items():
        found = theirs.get(name, mine)
        if found.shape[1:] == mine.shape[1:] and len(found) >= len(mine):
            mine.copy_(found[: len(mine)])


def velocity_loss(model: nn.Module, x: Tensor, conditions: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Squared error of v for clean latents (B, C, h, w) at stratified noise levels.

    Weighted by min(SNR + 1, 5) / (SNR + 1): Min-SNR (Hang et al. 2023) where there is little noise; at much noise v's own
    weight stays, since with zero terminal SNR the first step decides a picture's colours.
    """
    alphas = signal_shares(x.device)
    t = (torch.arange(len(x), device=x.device) + torch.rand(len(x), generator=generator, device=x.device)) / len(x)
    t = (t * len(alphas)).long()
    share = alphas[t].view(-1, 1, 1, 1)  # SNR = share / (1 - share), SNR + 1 = 1 / (1 - share)
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    noisy = (share.sqrt() * x + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    target = share.sqrt() * noise - (1 - share).sqrt() * x
    error = (model(noisy, t, *conditions).float() - target).square()
    return (error * (SNR_LIMIT * (1 - share)).clamp(max=1)).mean()


@torch.no_grad()
def draw(model: Any, embeds: Tensor, shape: tuple[int, ...], steps: int = 20, guidance: float = 3.0) -> Tensor:
    """Latents (B, C, h, w) of unit embeddings (B, d), by DDIM; picture i draws its noise from seed i."""
    device = embeds.device
    z = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(len(embeds))])
    z = z.to(device).contiguous(memory_format=torch.channels_last)
    dropped = torch.arange(2 * len(z), device=device)[:, None] < len(z)
    both = model.conditions(embeds.repeat(2, 1), dropped, torch.Generator(device).manual_seed(0))
    noise_scheduler = scheduler()
    noise_scheduler.set_timesteps(steps)
    for t in noise_scheduler.timesteps:
        uncond, cond = model(torch.cat([z, z]), t.expand(2 * len(z)).to(device), *both).float().chunk(2)
        z = noise_scheduler.step(uncond + guidance * (cond - uncond), t, z).prev_sample
    return z


@torch.no_grad()
def sheet(model: Any, movq: VQModel, embeds: Tensor, pictures: Tensor, shape: tuple[int, ...]) -> Image.Image:
    """Pictures uint8 (N, 64, 64, 3) in rows of eight, beneath each row what the decoder draws of their embeddings (N, d)."""
    movq = movq.to(embeds.device)
    drawn = bytes_of(movq.decode(draw(model, embeds, shape), force_not_quantize=True).sample).cpu()
    rows = [torch.cat([*row.unbind()], 1) for pair in zip(pictures.split(8), drawn.split(8), strict=True) for row in pair]
    return Image.fromarray(torch.cat(rows).numpy())


def sampling_weights(rows: Sequence[dict[str, Any]]) -> Tensor:
    """(N,), with sum 1: things count with the square root of how many pictures they have, the table's concepts three times.

    Kinds of pictures count by `KINDS`.
    """
    thing, kind = numbered([f"{row['kind']}|{row['thing']}" for row in rows]), numbered([row["kind"] for row in rows])
    weights = torch.bincount(thing)[thing].float().rsqrt() * torch.tensor([3.0 if row["concept"] else 1.0 for row in rows])
    share = torch.tensor([KINDS[row["kind"]] for row in rows])
    weights = weights * share / torch.zeros(int(kind.max()) + 1).index_add_(0, kind, weights)[kind]
    return weights / weights.sum()


def check_space(packed: pack.Pack, folder: Path) -> None:
    """Notes which image space a decoder is trained on, and refuses another one later."""
    file = folder / "space.txt"
    if file.exists() and file.read_text() != packed.space:
        raise InputError(f"{folder} was trained on another image space than this pack is of: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(packed.space)


def latents_of(packed: pack.Pack, folder: Path, device: str) -> Tensor:
    """The pictures' latents (N, C, h, w) in fp16, kept in `folder` for as long as movq and the pictures are the same."""
    weights = packed.movq.state_dict().values()
    digest = hashlib.sha256(b"".join(w.numpy().tobytes() for w in [*weights, packed.pictures])).hexdigest()[:16]
    file = folder / f"latents-{digest}.safetensors"
    if not file.exists():
        movq = packed.movq.to(device, memory_format=torch.channels_last)  # type: ignore[call-arg]
        with fast(device, movq):
            made = [encode(movq, part.to(device)).half().cpu() for part in packed.pictures.split(1024)]
        with written(file) as part:
            save_file({"latents": torch.cat(made).contiguous()}, part)
    return load_file(file)["latents"].to(device)


def train(
    pack_file: Path,
    out: Path,
    decoder: Decoder,
    *,
    minutes: float,
    device: str = "cpu",
    batch: int | None = None,
    width: int = 64,
    cool: bool = False,
    most: int | None = None,
) -> None:
    """Trains a decoder for so many minutes, from where `out` left it.

    Writes `out/movq`, and every five minutes (on CUDA one) `out/<decoder>` with the averaged weights and a sheet of drawings.

    Args:
        pack_file: what `pack.write` wrote.
        decoder: stable-unclip starts from the other's blocks, where `out` holds it.
        device: `cpu` or `cuda`.
        batch: pictures a step; 64 on a CPU, 512 on CUDA by default.
        width: channels of the first level; 64 makes 10 million parameters, 112 thirty.
        cool: the learning rate falls to zero over this sitting: for the last one.
        most: pictures seen in this sitting at the most.

    Raises:
        InputError: the pack cannot be read, or `out` was trained on another image space.
    """
    torch.manual_seed(0)
    packed, folder = pack.read(pack_file), out / decoder.value
    check_space(packed, folder)
    latents, embeds = latents_of(packed, out, device), packed.embeddings.to(device)
    shape, batch = tuple(latents.shape[1:]), batch or (64 if device == "cpu" else 512)
    model: Any
    if decoder is Decoder.kandinsky:
        model = KandinskyDenoiser(embeds.shape[1], shape[0], shape[1], width)
    else:
        captions = [row["captions"] for row in packed.rows]
        words = tokenizer(folder / "tokenizer", [c for cs in captions for c in cs])
        model = UnclipDenoiser(embeds.shape[1], shape[0], shape[1], width, words, captions)
        first = out / Decoder.kandinsky.value / "unet"
        if first.exists() and not (folder / "state.pt").exists():
            borrow(model.unet, UNet2DConditionModel.from_pretrained(first, torch_dtype=torch.float32))
    model = model.to(device, memory_format=torch.channels_last).train()
    near, weights = Neighbours(embeds, packed.rows), sampling_weights(packed.rows).to(device)
    optimiser, mean = Muon(model), average(model)
    forward: Any = torch.compile(model) if device != "cpu" else model
    shown = torch.multinomial(weights, min(SHEET, len(weights)), generator=torch.Generator(device).manual_seed(0))
    if not (out / "movq").exists():
        fit_codebook(packed.movq.cpu(), latents[:: max(1, len(latents) // 2000)].cpu())
        packed.movq.to(memory_format=torch.contiguous_format).save_pretrained(out / "movq")

    def step(done: int, rate: float, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        dropped = torch.rand(batch, 1, generator=generator, device=device) < DROP
        conditions = model.conditions(near.draw(rows, generator), dropped, generator, rows)
        loss = velocity_loss(forward, latents[rows].float(), conditions, generator)
        warm = min(1.0, (done / batch + 1) / WARM_STEPS)
        optimiser.update(loss, LR * warm * rate)
        mean.step(model.parameters())
        return loss.detach()

    def write() -> dict[str, float]:
        with averaged(model, mean):
            model.write(folder)
            sheet(model, packed.movq, embeds[shown], packed.pictures[shown.cpu()], shape).save(folder / "sheet.png")
        return {}

    parts = {"model": model, "optimiser": optimiser, "average": mean}
    every = {"save_every": 60, "write_every": 300} if device == "cpu" else {"save_every": 20, "write_every": 60}
    with fast(device, model):
        loop(step, parts, folder, minutes=minutes, batch=batch, write=write, cool=cool, device=device, most=most, **every)
