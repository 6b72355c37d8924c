"""The starter's second decoder: Stable UnCLIP's architecture at small size, on the first decoder's latents.

The image embedding is noised to a random level (published Stable UnCLIP does the same), joined with a sinusoidal embedding
of that level, and added to the UNet's time embedding through a projection; captions enter by cross-attention. A tenth of the
pictures get neither: zeros and the empty text are what guidance goes away from. Three captions in ten are kept, so that a
picture needs none.

Its autoencoder is movq in another class, made when the checkpoint is loaded (`pipelines.autoencoders`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from .diffusion import DROP, Conditions, Neighbours, Takes

WORDS, LENGTH, WIDTH = 4096, 16, 128
TOLD = 0.3


def tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer of 4096 pieces for texts of up to 16, fitted to captions."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(sorted(captions), trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=special))
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=LENGTH,
    )


def text_encoder(words: int) -> CLIPTextModel:
    """A CLIP text model of two layers, 128 wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )


def build(
    embed_dim: int, latent_channels: int, sample_size: int, channels: tuple[int, ...], attention_from: int, layers: int = 1
) -> UNet2DConditionModel:
    """Attention blocks on levels `attention_from` and below, as in `kandinsky.build`."""
    attend = [level >= attention_from for level in range(len(channels))]
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attend),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
        block_out_channels=channels,
        layers_per_block=layers,
        norm_num_groups=16,
        attention_head_dim=tuple(c // 32 for c in channels),  # this class takes a number of heads by that name
        cross_attention_dim=WIDTH,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * embed_dim,
        resnet_time_scale_shift="scale_shift",
    )


class Denoiser(nn.Module):
    """The UNet and its text encoder, trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy: Tensor, t: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        return self.unet(noisy, t, self.text_encoder(ids)[0], class_labels=labels).sample


def noising() -> DDPMScheduler:
    """How embeddings are noised, as published."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")


def noised(point: Tensor, level: Tensor, noise_scheduler: DDPMScheduler, generator: torch.Generator) -> Tensor:
    """Embeddings (B, d) noised to their levels (B), joined with the levels' own embedding: (B, 2 d), as the UNet takes them."""
    moved = noise_scheduler.add_noise(point, torch.randn(point.shape, generator=generator), level)
    return torch.cat([moved, get_timestep_embedding(level, point.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)], 1)


def conditions(neighbours: Neighbours, captions: Sequence[Sequence[str]], words: Any, embed_norm: float) -> Conditions:
    """Noised embeddings with their level (B, 2 d) and caption tokens (B, 16), from embeddings near the pictures' and captions.

    Levels are the squares of even ones: most are low, as they are in use.
    """
    every = sorted({c for cs in captions for c in cs} | {""})
    ids = words(every, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    index = {text: i for i, text in enumerate(every)}
    choices = [[index[c] for c in cs] for cs in captions]
    noise_scheduler = noising()

    def draw(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        point = neighbours.draw(rows, generator) * embed_norm
        level = (torch.rand(len(rows), generator=generator).square() * len(noise_scheduler.alphas_cumprod)).long()
        labels = noised(point, level, noise_scheduler, generator)
        chance = torch.rand(len(rows), 2, generator=generator)
        dropped = torch.rand(len(rows), generator=generator) < DROP
        labels[dropped] = 0
        told = [
            choices[row][int(pick * len(choices[row]))] if keep < TOLD and not gone else index[""]
            for row, (keep, pick), gone in zip(rows.tolist(), chance.tolist(), dropped.tolist(), strict=True)
        ]
        return labels, ids[told]

    return draw


def takes(words: Any, embed_norm: float) -> Takes:
    """Unit embeddings (B, d) as the UNet takes them in use: hardly noised, without words."""
    noise_scheduler = noising()

    def given(embeds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        level = torch.zeros(len(embeds), dtype=torch.int64)
        return noised(embeds * embed_norm, level, noise_scheduler, generator), wordless(words, len(embeds))

    return given


def nothing(embed_dim: int, words: Any, count: int) -> tuple[Tensor, Tensor]:
    """What stands for no prompt, `count` times: zeros (B, 2 d) and the empty text (B, 16)."""
    return torch.zeros(count, 2 * embed_dim), wordless(words, count)


def wordless(words: Any, count: int) -> Tensor:
    """Tokens (B, 16) of the empty text."""
    ids: Tensor = words([""] * count, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return ids
