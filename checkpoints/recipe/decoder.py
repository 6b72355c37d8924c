"""The starter's first decoder: Kandinsky 2.2's own UNet classes at small size, trained from cached latents.

The UNet sees image embeddings scaled to `embed_norm`, a fifth of them replaced: half of that by the unconditional
embedding (for classifier-free guidance, Ho & Salimans 2022), and all others carry a little noise on the sphere, since
at inference text and sound land near pictures, not on them. The target is v (Salimans & Ho 2022) under a cosine
schedule rescaled to zero terminal SNR (Lin et al. 2023), so that white stays white.

The UNet has twice the latent channels at its output, as `KandinskyV22Pipeline` expects; the second half (a learned
variance there) is held at zero, which DDPM's `learned_range` reads as the middle of its range.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .training import Average, bf16_convolutions, loop, processes, update, warm_then_cool

DROP = 0.1


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


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def jitter(embeds: Tensor, generator: torch.Generator, most: float = 0.6) -> Tensor:
    """Unit vectors moved by Gaussian noise of a random size, back on the sphere; a third stay as they are."""
    size = torch.rand(len(embeds), 1, generator=generator) * 1.5 - 0.5
    noise = torch.randn(embeds.shape, generator=generator) / embeds.shape[1] ** 0.5
    return F.normalize(embeds + size.clamp(min=0) * most * noise, dim=1)


def train(
    latents: Tensor,
    embeds: Tensor,
    unconditional: Tensor,
    weights: Tensor,
    folder: Path,
    *,
    model: UNet2DConditionModel,
    embed_norm: float,
    samples: int,
    minutes: float,
    last: bool = False,
    batch: int = 64,
    lr: float = 8e-4,
    seed: int = 0,
    decay: float = 0.999,
) -> UNet2DConditionModel:
    """Trains on latents (N, C, h, w) and unit embeddings (N, d), drawn with probability proportional to `weights` (N).

    Stops at `samples` in all or after `minutes` of this sitting; resumes from `folder`. Returns the averaged model.
    Under `torchrun` the processes share each batch; the first one keeps state and log.
    """
    rank, world = processes()
    if batch % world:
        raise ValueError(f"a batch of {batch} cannot be shared by {world} processes")
    torch.manual_seed(seed)
    noise_scheduler = scheduler()
    alphas = noise_scheduler.alphas_cumprod
    with torch.no_grad():
        model.conv_out.weight[latents.shape[1] :].zero_()
        model.conv_out.bias[latents.shape[1] :].zero_()
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    average = Average(model, decay)
    forward: nn.Module = DistributedDataParallel(model) if world > 1 else model

    def step(progress: float, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        x = latents[rows].float()
        condition = jitter(embeds[rows], generator)
        drop = torch.rand(batch, generator=generator) < DROP
        condition[drop] = unconditional
        # stratified over the batch: every batch sees the whole range of noise levels
        t = ((torch.arange(batch) + torch.rand(batch, generator=generator)) / batch * len(alphas)).long()
        noise = torch.randn(x.shape, generator=generator)
        noisy = noise_scheduler.add_noise(x, noise, t).contiguous(memory_format=torch.channels_last)
        target = noise_scheduler.get_velocity(x, noise, t)
        # every process draws the whole batch, which costs nothing, and keeps its own rows of it
        noisy, target, condition, t = (part[rank::world] for part in (noisy, target, condition, t))
        out = forward(noisy, t, None, added_cond_kwargs={"image_embeds": condition * embed_norm}).sample
        loss = F.mse_loss(out[:, : x.shape[1]], target)
        update(loss, optimiser, lr * warm_then_cool(progress))
        average.step()
        return loss.detach()

    parts = {"model": model, "optimiser": optimiser, "average": average}
    with bf16_convolutions(model):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last)
    model.load_state_dict(average.shadow)
    return model.eval()
