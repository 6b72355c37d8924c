"""Kaldi's log mel filter banks (Povey et al. 2011), which most speech and sound transformers were trained on.

Written from the definition of Kaldi's `compute-fbank-feats`, with the numbers of `torchaudio.compliance.kaldi.fbank`. The
C++ port `kaldi-native-fbank` cannot stand in: it refuses 128 bands at 16 kHz, since the lowest are narrower than a bin of
the spectrum and stay empty, and just those settings are what sound encoders were trained with.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

FLOOR = 1.1920928955078125e-07  # the least fp32 e with 1 + e > 1: Kaldi's floor under a logarithm
WINDOWS = ("povey", "hanning")


def fbank(
    sound: Tensor,
    rate: int = 16000,
    mels: int = 128,
    *,
    window: str = "povey",
    frame_ms: float = 25.0,
    hop_ms: float = 10.0,
    preemphasis: float = 0.97,
    use_energy: bool = False,
    htk_compat: bool = False,
    snip_edges: bool = True,
    dither: float = 0.0,
    low_hertz: float = 20.0,
    high_hertz: float = 0.0,
) -> Tensor:
    """Natural logs of mel band energies, floored at the logarithm of fp32's epsilon (-15.94), where empty bands are too.

    Args:
        sound: mono samples (n,), any scale: a factor of a shifts the result by 2 log(a), encoders say which they expect.
        rate: of the samples, in Hz.
        mels: number of bands.
        window: `hanning`, or `povey`, the same to the power 0.85.
        frame_ms: length of a frame in milliseconds.
        hop_ms: from one frame's start to the next's, in milliseconds.
        preemphasis: each sample loses this share of the one before it, within its frame; 0 to 1.
        use_energy: add a column with the frame's log energy before windowing, floored at 0.
        htk_compat: that column comes last instead of first.
        snip_edges: only frames that lie wholly in the sound; otherwise one for every hop, the sound mirrored at its ends.
        dither: standard deviation of the noise added to each frame, from torch's global generator.
        low_hertz: lower edge of the lowest band.
        high_hertz: upper edge of the highest band; 0 or below counts from half the rate.

    Returns:
        (frames, mels) fp32, (frames, mels + 1) with `use_energy`; no frames if the sound is shorter than one.

    Raises:
        InputError: the sound is not one vector of finite samples, the window is unknown, or the edges are not in order.
    """
    if sound.ndim != 1:
        raise InputError(f"a sound must be one vector of mono samples, got shape {tuple(sound.shape)}: mix it down first")
    if not torch.isfinite(sound).all():
        raise InputError("a sound holds NaN or infinite samples: remove them first")
    if window not in WINDOWS:
        raise InputError(f"unknown window {window!r}: choose from {', '.join(WINDOWS)}")
    size, hop = int(rate * frame_ms / 1000), int(rate * hop_ms / 1000)
    points = 1 << (size - 1).bit_length()
    frames = cut(sound.float(), size, hop, snip_edges)
    if len(frames) == 0:
        return frames.new_zeros(0, mels + use_energy)
    if dither:
        frames = frames + dither * torch.randn_like(frames)
    frames = frames - frames.mean(1, keepdim=True)
    energy = frames.square().sum(1, keepdim=True).clamp(min=FLOOR).log().clamp(min=0)
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    taper = torch.hann_window(size, periodic=False, device=sound.device)
    frames = (frames - preemphasis * before) * (taper**0.85 if window == "povey" else taper)
    power = torch.fft.rfft(frames, points).abs().square()
    filters = mel_filters(rate, points, mels, low_hertz, high_hertz).to(sound.device)
    bands = (power @ filters).clamp(min=FLOOR).log()
    if not use_energy:
        return bands
    return torch.cat([bands, energy] if htk_compat else [energy, bands], dim=1)


def cut(sound: Tensor, size: int, hop: int, snip_edges: bool) -> Tensor:
    """Samples (n,) -> overlapping frames (frames, size)."""
    samples = len(sound)
    if snip_edges:
        return sound.unfold(0, size, hop) if samples >= size else sound.new_zeros(0, size)
    count = (samples + hop // 2) // hop
    if count == 0:
        return sound.new_zeros(0, size)
    starts = torch.arange(count, device=sound.device) * hop + hop // 2 - size // 2
    at = (starts[:, None] + torch.arange(size, device=sound.device)) % (2 * samples)
    return sound[torch.minimum(at, 2 * samples - 1 - at)]  # mirrored so that the first and the last sample come twice


@cache
def mel_filters(
    rate: int,
    points: int,
    mels: int,
    low_hertz: float = 20.0,
    high_hertz: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Triangles that are straight in mel, not in Hz, with a peak of 1: (points / 2 + 1, mels).

    They are computed in `dtype`, fp32 on purpose: it is what encoders over Kaldi's features saw, and a bin on a triangle's foot
    has a weight of rounding errors.

    Raises:
        InputError: the edges are not in the order 0, lowest, highest, half the rate.
    """
    top = high_hertz if high_hertz > 0 else rate / 2 + high_hertz
    if not 0 <= low_hertz < top <= rate / 2:
        raise InputError(f"bands from {low_hertz} to {top} Hz do not fit a rate of {rate} Hz: at most half of it is there")
    low, high = (1127 * math.log(1 + f / 700) for f in (low_hertz, top))
    step = (high - low) / (mels + 1)
    bands = torch.arange(mels, dtype=dtype)
    left, centre, right = (low + (bands + k) * step for k in range(3))
    bins = 1127 * (1 + torch.arange(points // 2, dtype=dtype) * (rate / points) / 700).log()[:, None]
    weights = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return F.pad(weights, (0, 0, 0, 1))  # the bin at half the rate belongs to no band
