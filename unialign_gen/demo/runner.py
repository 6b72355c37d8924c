"""What every action that draws has in common: its numbers are checked once, its work runs as a job, its notes are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..notes import Note, collected
from ..request import Request
from ..request.request import checked
from .engine import Engine, Job, Progress
from .limits import prior_strength, steps_and_guidance, whole
from .models import Model

SIDES = (64, 512)  # of a picture, in pixels


class Noted(Protocol):
    notes: list[Note]


R = TypeVar("R", bound=Noted)


@dataclass
class Action:
    """What is asked of a model, as it came. Numbers that are None are the model's own."""

    model: Any = "starter"
    seed: Any = 0
    steps: Any = None
    guidance: Any = None
    prior: Any = None
    size: Any = None
    told: list[Note] = field(default_factory=list, repr=False)  # while the prompts were read

    def chosen(self, engine: Engine) -> Model:
        return engine.model(self.model)

    def request(self, engine: Engine, **values: Any) -> Request:
        """A request with these numbers, and whatever else it asks for.

        Raises:
            InputError: one that cannot be used.
        """
        limits, model = engine.limits, self.chosen(engine)
        steps, guidance = steps_and_guidance(limits, model, self.steps, self.guidance)
        side = None if self.size is None else whole(self.size, "size", *SIDES) // 32 * 32
        return checked(
            Request,
            seed=whole(self.seed, "seed", 0, limits.seed),
            steps=steps,
            guidance=guidance,
            prior_strength=prior_strength(model, self.prior),
            height=side,
            width=side,
            **values,
        )

    def do(
        self, engine: Engine, session: str, work: Callable[[Any, Job[R]], R], first: str = "reading the prompt"
    ) -> Iterator[Progress | R]:
        """Runs `work` with the model's pipeline: its reports as they come, then its result with all notes.

        Raises:
            CancelledError: the session stopped it.
            InputError: as the work raised it.
        """
        label = self.chosen(engine).label

        def noted(job: Job[R]) -> R:
            pipeline = engine.pipeline(label)
            job.report(Progress(0, 1, first))
            with collected() as notes:
                result = work(pipeline, job)
            result.notes = list(dict.fromkeys([*self.told, *notes]))
            return result

        yield from engine.run(noted, session, type(self).__name__)
