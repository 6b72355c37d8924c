"""Film: a recording plays while the picture follows it, and the forms in which moving pictures are handed out."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import InputError
from ..film import Plan, make_film
from ..film.sheets import save_sequence
from ..notes import Note, collected
from ..request import Request
from . import html
from .action import Action, Upload
from .context import AppContext
from .decode import FILM_RATE
from .engine import Job, Progress
from .limits import decimal

OPUS_RATE = 48_000  # Hz
GIF_SIDE, THUMBS = 256, 24


@dataclass
class Film:
    """What was made: the file, the pictures drawn, their number a second, and what to say of it."""

    path: Path
    pictures: list[Image.Image]
    rate: float
    said: str
    notes: list[Note] = field(default_factory=list)


@dataclass
class Animate(Action):
    """A film of a recording: `pictures` a second, `smooth` in seconds; the prompt stays in the mix with `text_weight`."""

    sound: Upload | None = None
    text_weight: float = 0.3
    pictures: float = 4
    smooth: float = 0.5
    outputs: ClassVar[dict[str, Any]] = {"film": gr.Video, "stage": gr.Textbox}

    def run(self, context: AppContext, session: str = "") -> Iterator[Progress | Film]:
        limits, plain, stay = context.limits, self.request(context), self.prompts(context)
        share = decimal(self.text_weight, "the weight of the words", 0, 1)
        rate = decimal(self.pictures, "pictures a second", 1, limits.film_pictures)
        smooth = decimal(self.smooth, "smoothness", 0.1, 5)
        plan = Plan(pictures=rate, smooth=smooth, longest=limits.film_seconds + 1, batch=4)
        if not isinstance(self.sound, str):
            raise InputError("nothing to play: add a recording, or record one")
        with collected() as told:
            track = context.decode_worker.decode("track", self.sound)
        assert isinstance(track.value, np.ndarray)
        folder = context.folder()
        recording = save_wav(track.value, folder / "recording.wav")

        def work(pipeline: Any, job: Job[Film]) -> Film:
            base = pipeline.mixed(Request((stay,), prior_strength=plain.prior_strength))[0][0] if stay else None
            pictures: list[Image.Image] = []

            def progress(done: int, total: int, batch: list[Image.Image]) -> None:
                pictures.extend(batch)
                job.report(Progress(done, total, "drawing the film", batch))

            made = make_film(
                pipeline,
                recording,
                folder / "film.mp4",
                plan,
                int(self.seed),
                base,
                share,
                progress=progress,
                check=job.check,
                prior_strength=plain.prior_strength,
                num_inference_steps=plain.steps,
                guidance_scale=plain.guidance,
                callback_on_step_end=lambda *_: job.check(),
            )
            said = f"{made['seconds']:.1f} s, {made['pictures']} pictures"
            if track.seconds is not None and track.seconds > made["seconds"] + 0.1:
                said += f"; the first {limits.film_seconds:.0f} s of {track.name}"
            return Film(folder / "film.mp4", pictures, rate, said)

        try:
            yield from self.job(context, session, work, told, "listening")
        finally:
            recording.unlink(missing_ok=True)

    def answer(self, result: Film, context: AppContext) -> dict[str, Any]:
        gif, rate = result.path.with_suffix(".gif"), result.rate
        save_sequence([p.resize((GIF_SIDE, GIF_SIDE)) for p in result.pictures], gif, max(1, round(rate)), back=False)
        files = [result.path, save_webm(result.path, result.path.with_suffix(".webm")), gif]
        frames = [(i / rate, f"picture {i + 1}", p) for i, p in enumerate(result.pictures)][
            :: -(-len(result.pictures) // THUMBS)
        ]
        return {"film": str(result.path), "stage": html.fragment("moving", result.said, result.notes, frames, files)}


def save_wav(samples: np.ndarray, path: Path) -> Path:
    """Stereo int16 samples (n, 2) as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(FILM_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def save_webm(source: Path, out: Path) -> Path:
    """One of our own MP4 films as VP8 and Opus."""
    import av

    with av.open(str(source)) as film, av.open(str(out), "w") as made:
        seen, heard = film.streams.video[0], next(iter(film.streams.audio), None)
        picture: Any = made.add_stream("libvpx", rate=seen.average_rate, options={"deadline": "realtime", "cpu-used": "8"})
        picture.width, picture.height, picture.pix_fmt, picture.bit_rate = seen.width, seen.height, "yuv420p", 1_500_000
        sound: Any = None if heard is None else made.add_stream("libopus", rate=OPUS_RATE, layout="stereo")
        fitting = av.AudioResampler("flt", "stereo", OPUS_RATE, frame_size=960)
        for frame in film.decode(*(s for s in (seen, heard) if s is not None)):
            if isinstance(frame, av.VideoFrame):
                frame.pict_type = 0  # the encoder's own choice, not the source's
                made.mux(picture.encode(frame))
            else:
                made.mux([p for f in fitting.resample(frame) for p in sound.encode(f)])
        if sound is not None:
            made.mux([p for f in fitting.resample(None) for p in sound.encode(f)])
            made.mux(sound.encode(None))
        made.mux(picture.encode(None))
    return out
