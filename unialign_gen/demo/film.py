"""Film: a request for a film of a recording, and the forms in which moving pictures are handed out."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..film import Plan, make_film
from ..notes import Note, collected
from ..request import Prompt, Request
from .decode import FILM_RATE
from .decode_worker import DecodeWorker
from .engine import Engine, Job, Progress
from .limits import decimal, words
from .prompts import given_parts, upload
from .runner import Action

OPUS_RATE = 48_000


@dataclass
class Film:
    """What was made: the file, its length in seconds, the pictures drawn, and what to say of it."""

    path: Path
    seconds: float
    pictures: list[Image.Image]
    said: str
    notes: list[Note] = field(default_factory=list)


@dataclass
class Animate(Action):
    """A request, as it came; `run` checks it. `text` or the encoded prompts `parts` stay in the mix, with weight
    `text_weight`; `rate` pictures a second, `smooth` in seconds."""

    sound: Any = None
    text: Any = ""
    text_weight: Any = 0.3
    rate: Any = 4
    smooth: Any = 0.5
    parts: Any = None

    def run(self, engine: Engine, decode_worker: DecodeWorker, folder: Path, session: str = "") -> Iterator[Progress | Film]:
        """Progress with the pictures so far, then the film, in `folder`.

        Raises:
            InputError: no sound, or something that cannot be used.
            CancelledError: the session stopped it.
        """
        limits, plain = engine.limits, self.request(engine)
        said = words(self.text, "the words", limits.text)
        share = decimal(self.text_weight, "the weight of the words", 0, 1)
        rate = decimal(self.rate, "pictures a second", 1, limits.film_pictures)
        smooth = decimal(self.smooth, "smoothness", 0.1, 5)
        plan = Plan(pictures=rate, smooth=smooth, longest=limits.film_seconds + 1, batch=4)
        stay = given_parts(self.parts, limits) if self.parts else (Prompt("text", said),) if said else ()
        if self.sound is None:
            raise InputError("nothing to play: add a recording, or record one")
        with collected() as self.told:
            track = decode_worker.decode("track", upload(self.sound, "sound"))
        assert isinstance(track.value, np.ndarray)
        recording = save_wav(track.value, folder / "recording.wav")

        def work(pipeline: Any, job: Job[Film]) -> Film:
            base = pipeline.mixed(Request((stay,), prior_strength=plain.prior_strength))[0][0] if stay else None
            pictures: list[Image.Image] = []

            def step_end(*_: Any) -> None:
                job.check()

            def progress(done: int, total: int, batch: list[Image.Image]) -> None:
                pictures.extend(batch)
                job.report(Progress(done, total, "drawing the film", batch))

            made = make_film(
                pipeline,
                recording,
                folder / "film.mp4",
                plan,
                plain.seed or 0,
                base,
                share,
                progress=progress,
                check=job.check,
                prior_strength=plain.prior_strength,
                num_inference_steps=plain.steps,
                guidance_scale=plain.guidance,
                callback_on_step_end=step_end,
            )
            cut = track.seconds is not None and track.seconds > made["seconds"] + 0.1
            what = f"{made['seconds']:.1f} s, {made['pictures']} pictures"
            what += f"; the first {limits.film_seconds:.0f} s of {track.name}" if cut else ""
            return Film(folder / "film.mp4", made["seconds"], pictures, what)

        try:
            yield from self.do(engine, session, work, "listening")
        finally:
            recording.unlink(missing_ok=True)


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
