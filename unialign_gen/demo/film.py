"""Sound to film: a request for a film of a recording."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..film import Plan, make_film
from ..notes import collected
from .decode import FILM_RATE
from .decode_worker import DecodeWorker
from .engine import Engine, Job, Progress
from .limits import decimal, steps_and_guidance, whole, words
from .prompts import upload


@dataclass
class Film:
    """What was made: the file, the length in seconds, and what to say of it."""

    path: Path
    seconds: float
    pictures: int
    said: str


@dataclass
class Animate:
    """A request, as it came; `run` checks it. Steps and guidance are the model's own where they are None."""

    sound: Any
    text: Any = ""
    text_weight: Any = 0.3
    pictures: Any = 4
    smooth: Any = 0.5
    seed: Any = 0
    steps: Any = None
    guidance: Any = None
    model: Any = "starter"

    def run(self, engine: Engine, decode_worker: DecodeWorker, folder: Path, session: str = "") -> Iterator[Progress | Film]:
        """Progress with the pictures so far, then the film, in `folder`.

        Raises:
            InputError: no sound, or something that cannot be used.
            CancelledError: the session stopped it.
        """
        limits = engine.limits
        model = engine.model(self.model)
        said = words(self.text, "the words", limits.text)
        share = decimal(self.text_weight, "the weight of the words", 0, 1)
        steps, guidance = steps_and_guidance(limits, model, self.steps, self.guidance)
        seed = whole(self.seed, "seed", 0, limits.seed)
        plan = Plan(
            pictures=decimal(self.pictures, "pictures a second", 1, limits.film_pictures),
            smooth=decimal(self.smooth, "smoothness", 0.1, 5),
            longest=limits.film_seconds + 1,
            batch=4,
        )
        if self.sound is None:
            raise InputError("nothing to play: add a recording, or record one")
        with collected() as told:
            track = decode_worker.decode("track", upload(self.sound, "sound"))
        assert isinstance(track.value, np.ndarray)
        recording = save_wav(track.value, folder / "recording.wav")

        def work(job: Job[Film]) -> Film:
            pipeline = engine.pipeline(model.label)
            job.report(Progress(0, 1, "listening"))
            with collected() as notes:
                base = pipeline.embed(text=said)[0] if said else None

            def step_end(*_: Any) -> None:
                job.check()

            made = make_film(
                pipeline,
                recording,
                folder / "film.mp4",
                plan,
                seed,
                base,
                share,
                progress=lambda done, total, batch: job.report(Progress(done, total, "drawing the film", batch)),
                check=job.check,
                num_inference_steps=steps,
                guidance_scale=guidance,
                callback_on_step_end=step_end,
            )
            cut = track.seconds is not None and track.seconds > made["seconds"] + 0.1
            what = f"{made['seconds']:.1f} s, {made['pictures']} pictures"
            what += f"; the first {limits.film_seconds:.0f} s of {track.name}" if cut else ""
            what = "; ".join([what, *(n.text for n in dict.fromkeys([*told, *notes]))])
            return Film(folder / "film.mp4", made["seconds"], int(made["pictures"]), what)

        try:
            yield from engine.run(work, session, "film")
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
