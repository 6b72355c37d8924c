"""Spoken names of the concepts, by the espeak-ng library that a package carries."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unialign_gen.encoders.aisfx import RATE

from .concepts import article

VOICES = [("en-us", 165, 50), ("en-gb", 150, 40), ("en-us+f3", 160, 60), ("en-gb-scotland+m4", 140, 45)]
SPEED, PITCH = 1, 3
RETRIEVAL = 1


class Speaker:
    """espeak-ng, opened once: texts to samples."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate = self.library.espeak_Initialize(RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
        self.heard: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def receive(samples: object, count: int, _: object) -> int:
            if samples and count > 0:
                self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        self.callback = kind(receive)  # kept: the library calls it as long as it lives
        self.library.espeak_SetSynthCallback(self.callback)

    def say(self, text: str, voice: str, speed: int, pitch: int) -> np.ndarray:
        self.heard.clear()
        self.library.espeak_SetVoiceByName(voice.encode())
        self.library.espeak_SetParameter(SPEED, speed, 0)
        self.library.espeak_SetParameter(PITCH, pitch, 0)
        raw = text.encode()
        self.library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, 0, 0, 1, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(self.heard).astype(np.float32) / 32768


def speak_all(
    names: list[str],
    out: Path,
    write: Callable[[np.ndarray, Path], float],
    trim: Callable[[np.ndarray], np.ndarray],
) -> Iterator[tuple[str, str, int]]:
    """Writes every name in every voice; yields (file name, concept, voice number)."""
    import soxr

    speaker = Speaker()
    for name in names:
        for number, (voice, speed, pitch) in enumerate(VOICES):
            samples = soxr.resample(speaker.say(article(name), voice, speed, pitch), speaker.rate, RATE)
            file = f"espeak-{name.replace(' ', '_')}-{number}.flac"
            write(trim(samples), out / file)
            yield file, name, number
