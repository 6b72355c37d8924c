"""BEATs (Chen et al. 2022, arXiv 2212.09058; published code and weights MIT): a sound transformer over mel patches, 768-d.

Sound becomes log mels at 100 frames a second, these become patches of 16 frames by 16 bands, and a post-norm transformer
with deep norm (Wang et al. 2022) and gated relative positions (Chi et al. 2021, as in WavLM) turns patches into tokens.
Parameters have the names of the published checkpoints, so that those load key for key.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .base import Encoder
from .kaldi import fbank
from .published import load_pickle
from .quantised import stored_weights

RATE = 16000
MEAN, STD = 15.41663, 6.55582  # of AudioSet's mels, for samples at the scale of 16 bit integers
FRAME, HOP = 400, 160
ENCODE_AT_ONCE = 16

ARCHITECTURE: dict[str, Any] = {
    "input_patch_size": 16,
    "embed_dim": 512,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "deep_norm": True,
    "conv_bias": False,
}
FIXED: dict[str, Any] = {"layer_norm_first": False, "activation_fn": "gelu", "relative_position_embedding": True}
OURS: dict[str, Any] = {"mels": 128, "window": 1000, "pooling": "mean", "slices": 0}
POOLINGS = ("mean", "attention")


class PositionConv(nn.Module):
    """Positions by a grouped convolution over the tokens, its weight normalised for each tap: (B, width, N) -> the same."""

    def __init__(self, width: int, taps: int, groups: int):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(1, 1, taps))
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, taps))
        self.bias = nn.Parameter(torch.zeros(width))
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        direction = self.weight_v.float()  # (width, width / groups, taps)
        length = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
        weight = (self.weight_g.float() * direction / length).to(self.weight_v.dtype)
        y = F.conv1d(x, weight, self.bias, padding=weight.shape[2] // 2, groups=self.groups)
        return F.gelu(y[..., : x.shape[2]])  # an even number of taps yields one position too many


class Attention(nn.Module):
    """Self-attention whose relative position bias each query gates for itself."""

    def __init__(self, width: int, heads: int, buckets: int, gated: bool):
        super().__init__()
        self.heads, self.gated = heads, gated
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.relative_attention_bias = nn.Embedding(buckets, heads)
        if gated:
            self.grep_linear = nn.Linear(width // heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def gate(self, query: Tensor) -> Tensor:
        """Unscaled queries (B, heads, N, width / heads) -> factors (B, heads, N, 1) of the position bias, 1 to 1 + a."""
        both = self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        update, reset = both.split(1, dim=-1)
        return 2 + update * (reset * self.grep_a - 1)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """(B, N, width), biases (heads, N, N), tokens that may be attended to (B, N) -> (B, N, width)."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, heads, N, width / heads) each
        bias = self.gate(query) * positions if self.gated else positions.unsqueeze(0)  # (B or 1, heads, N, N)
        bias = bias.masked_fill(~valid[:, None, None, :], float("-inf"))
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # (B, heads, N, width / heads)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A post-norm layer: what comes in counts `alpha` times as much as what attention or the two linear maps add."""

    def __init__(self, width: int, hidden: int, heads: int, buckets: int, gated: bool, alpha: float):
        super().__init__()
        self.alpha = alpha
        self.self_attn = Attention(width, heads, buckets, gated)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, positions, valid))
        return self.final_layer_norm(self.alpha * x + self.fc2(F.gelu(self.fc1(x))))


class Transformer(nn.Module):
    """Positions, then the layers, which share one table of relative position biases."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        width, depth = settings["encoder_embed_dim"], settings["encoder_layers"]
        self.buckets, self.max_distance = settings["num_buckets"], settings["max_distance"]
        self.pos_conv = nn.Sequential(PositionConv(width, settings["conv_pos"], settings["conv_pos_groups"]))
        self.layer_norm = nn.LayerNorm(width)
        alpha = (2 * depth) ** 0.25 if settings["deep_norm"] else 1.0
        hidden, heads = settings["encoder_ffn_embed_dim"], settings["encoder_attention_heads"]
        self.layers = nn.ModuleList(
            Layer(width, hidden, heads, self.buckets, settings["gru_rel_pos"], alpha) for _ in range(depth)
        )
        for layer in list(self.layers)[1:]:
            cast(Layer, layer).self_attn.relative_attention_bias = self.table
        self.register_state_dict_post_hook(unshare)

    @property
    def table(self) -> nn.Embedding:
        return cast(Layer, self.layers[0]).self_attn.relative_attention_bias

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Patches (B, N, width) and which of them are sound (B, N) -> tokens (B, N, width)."""
        x = x.masked_fill(~valid.unsqueeze(2), 0)  # as if nothing followed the sound, also for the convolution
        x = self.layer_norm(x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2))
        places = torch.arange(x.shape[1], device=x.device)
        distance = places[None, :] - places[:, None]  # (N, N), key less query
        positions = self.table(position_buckets(distance, self.buckets, self.max_distance)).permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x, positions, valid)
        return x


def unshare(encoder: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]) -> None:
    """Gives each layer's entry of the shared table memory of its own: the safetensors format refuses shared memory."""
    for key in state:
        if key.startswith(prefix) and key.endswith("relative_attention_bias.weight"):
            state[key] = state[key].clone()


def position_buckets(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Signed distances in tokens, key minus query, whole numbers -> bucket numbers, 0 to `buckets` - 1.

    Half of the buckets is for keys after the query; of each half, half holds one distance each and the rest widen
    logarithmically up to `max_distance`, beyond which all distances share the last.
    """
    side = buckets // 2
    exact = side // 2
    far = distance.abs()
    growth = torch.log(far.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (side - exact)
    wide = (exact + growth.long()).clamp(max=side - 1)
    return torch.where(far < exact, far, wide) + (distance > 0).long() * side


class Pool(nn.Module):
    """Attention pooling with one learned query: softmax of (token . query) / sqrt(width). A zero query is a plain mean."""

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """(B, N, width) and the valid tokens (B, N) -> (B, width)."""
        logits = (tokens @ self.query) / math.sqrt(tokens.shape[2])
        share = logits.masked_fill(~valid, float("-inf")).softmax(1)
        return (share.unsqueeze(2) * tokens).sum(1)


class BEATs(Encoder):
    """Features of sounds (B, 768): the mean, or a learned weighted mean, of all tokens of all windows.

    The published models were trained on AudioSet's clips of 10 s, and published users feed 10 s (10.24 s in VAST) at a
    time. So a longer sound is read in consecutive windows of 10 s, each encoded by itself; the mean runs over the tokens
    of all, so a short last window counts by its length. Up to 10 s the tokens are those of the published code. Frames
    that do not fill a patch, at most 15 at the end of each window, are left out as they are there.

    Args:
        config: the published `cfg` or a part of it; what it does not say is as in BEATs iter3+. Settings that change
            nothing at inference (dropout and the like) are ignored. Four settings are ours: `mels`, bands, 128 (64 in
            VAST, GRAM and PMRL); `window`, frames of 10 ms in a window, 1000 (1024 in VAST); `pooling`, `mean` or
            `attention`, whose query is one of the encoder's weights; `slices`, how many windows are read, and filled up, as
            VAST, GRAM and PMRL do, see `published_slices` (which also read the left channel of a stereo file); 0 reads all
            of a sound and nothing else.

    Raises:
        InputError: a setting that no published model has and that is not implemented, or one of ours out of range.
    """

    rate = RATE

    def __init__(self, config: dict[str, Any] | None = None):
        super().__init__()
        settings = read_settings(config or {})
        self.dim = settings["encoder_embed_dim"]
        self.patch, self.mels, self.window = settings["input_patch_size"], settings["mels"], settings["window"]
        self.config = {"encoder": "beats", **settings}
        self.slices = settings["slices"]
        self.downmix = "left" if self.slices else "mean"  # of a stereo file; the published code read one channel
        inner = settings["embed_dim"]
        self.patch_embedding = nn.Conv2d(1, inner, self.patch, stride=self.patch, bias=settings["conv_bias"])
        self.layer_norm = nn.LayerNorm(inner)
        self.post_extract_proj = nn.Linear(inner, self.dim) if inner != self.dim else nn.Identity()
        self.encoder = Transformer(settings)
        self.pool = Pool(self.dim) if settings["pooling"] == "attention" else None

    def prepare(self, sounds: list[Tensor]) -> Tensor:
        """Mono sounds (samples,) at 16 kHz in [-1, 1] -> (B, frames, mels), padded with NaN frames to the longest.

        A sound too short for one patch (175 ms) is padded with silence. With `slices` all have slices * window frames.

        Raises:
            InputError: a sound is empty or no vector of finite samples.
        """
        return self.collate([self.mel(s).unsqueeze(0) for s in sounds])

    def mel(self, sound: Tensor) -> Tensor:
        if sound.numel() == 0:
            raise InputError("a sound is empty: it needs at least one sample")
        if not self.slices:
            shortest = FRAME + (self.patch - 1) * HOP
            sound = F.pad(sound.float(), (0, max(0, shortest - sound.shape[-1])))
        mels = (fbank(sound * 2**15, RATE, self.mels) - MEAN) / (2 * STD)
        return published_slices(mels, self.window, self.slices) if self.slices else mels

    def tokens(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, frames, mels) from `prepare` -> tokens (B, N, 768) and which of them are sound (B, N).

        Tokens go window by window, by time within a window and by band, lowest first, within a patch's 160 ms. Those
        that are padding are zeros.
        """
        batch, bands = len(mels), mels.shape[2] // self.patch
        frames = (~mels[:, :, 0].isnan()).sum(1)
        count = max(1, math.ceil(int(frames.max()) / self.window))
        starts = torch.arange(count, device=mels.device) * self.window
        columns = ((frames[:, None] - starts).clamp(0, self.window) // self.patch).flatten()
        widest = int(columns.max())
        mels = F.pad(mels, (0, 0, 0, max(0, count * self.window - mels.shape[1])), value=float("nan"))
        pieces = mels[:, : count * self.window].reshape(batch * count, self.window, -1)[:, : widest * self.patch]
        valid = (torch.arange(widest, device=mels.device) < columns[:, None]).repeat_interleave(bands, 1)
        out = mels.new_zeros(batch * count, widest * bands, self.dim)
        for rows in columns.nonzero()[:, 0].split(ENCODE_AT_ONCE):
            out[rows] = self.encode(pieces[rows].nan_to_num(), valid[rows]).masked_fill(~valid[rows].unsqueeze(2), 0)
        return out.view(batch, -1, self.dim), valid.view(batch, -1)

    def encode(self, mels: Tensor, valid: Tensor) -> Tensor:
        """One window each, (B, frames, mels) without NaN, and its valid tokens (B, N) -> (B, N, 768)."""
        patches = self.patch_embedding(mels.unsqueeze(1)).flatten(2).transpose(1, 2)  # (B, N, embed_dim)
        return self.encoder(self.post_extract_proj(self.layer_norm(patches)), valid)

    def forward(self, mels: Tensor) -> Tensor:
        """(B, frames, mels) from `prepare` -> (B, 768)."""
        tokens, valid = self.tokens(mels)
        if self.pool is not None:
            return self.pool(tokens, valid)
        return tokens.sum(1) / valid.sum(1, keepdim=True).to(tokens.dtype)


def published_slices(mels: Tensor, window: int, count: int) -> Tensor:
    """The part of a sound that VAST, GRAM and PMRL read: normalised mels (frames, bands) -> (count * window, bands).

    Zeros, which are the mean of AudioSet's mels, fill the sound up to whole windows, and one whole window of them follows a
    sound that needs none. The windows are dealt to `count` equal stretches, the first ones longer, and the middle one of each
    is read.

    >>> published_slices(torch.ones(1500, 64), 1024, 1)[:, 0].sum()
    tensor(1024.)
    >>> published_slices(torch.ones(1500, 64), 1024, 2)[:, 0].sum()
    tensor(1500.)
    """
    frames = len(mels)
    missing = max(count * window - frames, window - frames % window)
    pieces = F.pad(mels, (0, 0, 0, missing)).unflatten(0, (-1, window))  # (windows, window, bands)
    stretches = torch.tensor_split(torch.arange(len(pieces)), count)
    middles = torch.stack([stretch[(len(stretch) + 1) // 2 - 1] for stretch in stretches])
    return pieces[middles].flatten(0, 1)


def read_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Every setting of the architecture and ours, with defaults filled in."""
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise InputError(f"BEATs with {name} = {config[name]!r} is not implemented: published models have {value!r}")
    known = ARCHITECTURE | OURS
    settings = known | {k: v for k, v in config.items() if k in known}
    if settings["pooling"] not in POOLINGS:
        raise InputError(f"unknown pooling {settings['pooling']!r}: choose from {', '.join(POOLINGS)}")
    if not isinstance(settings["slices"], int) or settings["slices"] < 0:
        raise InputError(f"slices must be a whole number, 0 for all of a sound, got {settings['slices']!r}")
    for name in ("mels", "window"):
        if settings[name] < settings["input_patch_size"]:
            raise InputError(f"{name} = {settings[name]} is less than one patch of {settings['input_patch_size']}")
    return settings


def published(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The published file that a configuration names: `cfg` and `model`."""
    path = folder / config["checkpoint"]
    found = load_pickle(path)
    if not isinstance(found, dict) or not all(isinstance(found.get(k), dict) for k in ("cfg", "model")):
        raise InputError(f"{path} is no BEATs checkpoint: it lacks 'cfg' or 'model'")
    return found


def build(folder: Path, config: dict[str, Any]) -> BEATs:
    """An encoder as `config` says; what it does not say is taken from the published checkpoint, if it names one."""
    cfg = published(folder, config)["cfg"] if "checkpoint" in config else {}
    return BEATs({**cfg, **config})


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in `folder/model.safetensors`, or in the published `.pt` that `config["checkpoint"]` names.

    The path is taken from `folder` unless it is absolute. Of a fine-tuned checkpoint the classifier, `predictor.*`, is
    left out. A published checkpoint knows no attention pooling: its query starts at zero, which is the mean.

    Raises:
        InputError: neither file is there, or the checkpoint is not one of BEATs or cannot be read safely.
    """
    if "checkpoint" not in config:
        return stored_weights(folder, config)
    state = {k: v for k, v in published(folder, config)["model"].items() if not k.startswith("predictor.")}
    if config.get("pooling") == "attention":
        state.setdefault("pool.query", torch.zeros(state["encoder.layer_norm.weight"].shape))
    return state
