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


def fbank(sound: Tensor, rate: int = 16000, mels: int = 128, *, window: str = "povey") -> Tensor:
    """Natural logs of mel band energies, floored at the logarithm of fp32's epsilon (-15.94), where empty bands are too.

    Frames of 25 ms every 10 ms that lie wholly in the sound, each without its mean, emphasised by 0.97; bands from 20 Hz to
    half the rate. No dither, no energy column: none of the encoders here was trained with them.

    >>> fbank(torch.zeros(16000), mels=2)[0]
    tensor([-15.9424, -15.9424])

    Args:
        sound: mono samples (n,), any scale: a factor of a shifts the result by 2 log(a), encoders say which they expect.
        rate: of the samples, in Hz.
        mels: number of bands.
        window: `hanning`, or `povey`, the same to the power 0.85.

    Returns:
        (frames, mels) fp32; no frames if the sound is shorter than one.

    Raises:
        InputError: the sound is not one vector of finite samples, or the window is unknown.
    """
    if sound.ndim != 1:
        raise InputError(f"a sound must be one vector of mono samples, got shape {tuple(sound.shape)}: mix it down first")
    if not torch.isfinite(sound).all():
        raise InputError("a sound holds NaN or infinite samples: remove them first")
    if window not in WINDOWS:
        raise InputError(f"unknown window {window!r}: choose from {', '.join(WINDOWS)}")
    size, hop = rate * 25 // 1000, rate * 10 // 1000
    if len(sound) < size:
        return torch.zeros(0, mels, device=sound.device)
    points = 1 << (size - 1).bit_length()
    frames = sound.float().unfold(0, size, hop)  # (frames, size)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    taper = torch.hann_window(size, periodic=False, device=sound.device)
    frames = (frames - 0.97 * before) * (taper**0.85 if window == "povey" else taper)
    power = torch.fft.rfft(frames, points).abs().square()  # (frames, points / 2 + 1)
    return (power @ mel_filters(rate, points, mels).to(sound.device)).clamp(min=FLOOR).log()


@cache
def mel_filters(
    rate: int,
    points: int,
    mels: int,
    low_hertz: float = 20.0,
    high_hertz: float | None = None,
    dtype: torch.dtype = torch.float32,
    straight_in_mel: bool = True,
) -> Tensor:
    """Triangles with a peak of 1, evenly spaced in mel: (points / 2 + 1, mels).

    Kaldi's sides are straight in mel, those of most other filter banks in Hz. They are computed in `dtype`, fp32 on purpose:
    it is what encoders over Kaldi's features saw, and a bin on a triangle's foot has a weight of rounding errors.

    >>> mel_filters(16000, 512, 80).shape
    torch.Size([257, 80])

    Raises:
        InputError: the edges are not in the order 0, lowest, highest, half the rate.
    """
    top = rate / 2 if high_hertz is None else high_hertz
    if not 0 <= low_hertz < top <= rate / 2:
        raise InputError(f"bands from {low_hertz} to {top} Hz do not fit a rate of {rate} Hz: at most half of it is there")
    low, high = (1127 * math.log(1 + f / 700) for f in (low_hertz, top))
    step = (high - low) / (mels + 1)
    bands = torch.arange(mels, dtype=dtype)
    left, centre, right = (low + (bands + k) * step for k in range(3))
    hertz = torch.arange(points // 2, dtype=dtype)[:, None] * (rate / points)
    if straight_in_mel:
        bins = 1127 * (1 + hertz / 700).log()
    else:
        bins, (left, centre, right) = hertz, (700 * ((m / 1127).exp() - 1) for m in (left, centre, right))
    weights = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return F.pad(weights, (0, 0, 0, 1))  # the bin at half the rate belongs to no band
