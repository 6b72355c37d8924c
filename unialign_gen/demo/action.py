"""What every action of the page has in common: its fields are the endpoint's parameters, checked once; its work is a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NewType

from torch import Tensor

from ..errors import InputError
from ..notes import collected, note
from ..request import Prompt, Request
from ..request.request import checked, read_prompts
from .decode_worker import Media
from .engine import AppContext, Job, Model, Progress
from .limits import decimal, whole, words

Upload = NewType("Upload", str)  # the path of a file that was uploaded
Near = list[tuple[str, float]]  # concepts, the nearest first, with their cosines
Work = Callable[[Any, Job], dict[str, Any]]  # from a model's pipeline to an action's outputs


@dataclass
class Action:
    """A request, as it came; `run` checks it.

    Attributes:
        text: words of the prompt. kept: any number of encoded prompts with their weights, in the JSON form of `/read`.
        seed, steps, guidance, prior_strength, model: the model's own where they are None, the first model where it is "".
        outputs: of the endpoint, by name, their types. first: what is done before there is anything to report.
    """

    text: str = ""
    kept: Any = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    prior_strength: float | None = None
    model: str = ""
    outputs: ClassVar[dict[str, Any]]
    first: ClassVar[str] = "reading the prompt"

    def prepare(self, context: AppContext) -> Work:
        """Checks the request, and says what is to be done, with the notes of all that is read in `job.notes`; what cannot be
        used is an `InputError`.
        """
        raise NotImplementedError

    def run(self, context: AppContext, session: str = "") -> Iterator[Any]:
        """Its `Progress`, then the outputs.

        Raises:
            InputError: something that cannot be used.
            CancelledError: the session stopped it.
        """
        with collected() as told:
            work = self.prepare(context)
        label = self.chosen(context).label

        def noted(job: Job) -> dict[str, Any]:
            pipeline = context.engine.pipeline(label, job.check)
            job.report(Progress(0, 1, self.first))
            with collected() as job.notes:
                for found in told:
                    note(found.kind, found.text)
                return work(pipeline, job)

        yield from context.engine.run(noted, session)

    def chosen(self, context: AppContext) -> Model:
        return context.engine.model(self.model or next(iter(context.engine.models)))

    def request(self, context: AppContext, **values: Any) -> Request:
        """A request with these numbers, and whatever else it asks for.

        A strength of the prior is not refused where the model has none: a program may send that of another model.
        """
        model, limits = self.chosen(context), context.limits
        prior = model.prior if self.prior_strength is None else decimal(self.prior_strength, "prior strength", 0, 1)
        return checked(
            Request,
            seed=whole(self.seed, "seed", 0, limits.seed),
            steps=model.steps if self.steps is None else whole(self.steps, "steps", 1, limits.steps),
            guidance=model.guidance if self.guidance is None else decimal(self.guidance, "guidance", 0, limits.guidance),
            prior_strength=0.0 if model.prior is None else prior,
            **values,
        )

    def prompts(self, context: AppContext, given: Mapping[str, tuple[Any, Any]] | None = None) -> tuple[Prompt, ...]:
        """Words and files, given by their kind with a weight each, by default the words alone; then what is kept."""
        most, out = context.limits.text, []
        for kind, (value, weight) in (given or {"text": (self.text, 1.0)}).items():
            found = words(value, "text", most) if kind == "text" else value
            if found not in (None, ""):
                prompt = Prompt("text", found) if kind == "text" else self.decoded(context, kind, found).prompt
                out.append(replace(prompt, weight=weight_of(weight, kind, context)))
        try:
            kept = read_prompts(self.kept) if self.kept else ()
        except InputError as error:
            raise InputError(f"what is kept of a picture cannot be used: {error}") from error
        for prompt in kept:
            weight_of(prompt.weight, prompt.kind, context)
            words(prompt.value if prompt.kind == "text" else "", "text", most)
        if out + list(kept) and not any(p.weight for p in (*out, *kept)):
            raise InputError("all weights are zero: at least one prompt must count")
        return (*out, *(p for p in kept if p.weight))

    def decoded(self, context: AppContext, kind: str, file: Any, name: str = "") -> Media:
        """What an upload holds; sound at the model's rate."""
        if not isinstance(file, str):
            raise InputError(f"{name or kind} must be a file")
        rate = 0 if kind == "image" else context.engine.rate(self.chosen(context).label)
        return context.decode_worker.decode(kind, file, rate)


def watched(request: Request, job: Job) -> dict[str, Any]:
    """The options of a call that draws with the numbers of a request, and stops where the job does."""
    stop = {"callback_on_step_end": lambda *_: job.check()}
    return {"num_inference_steps": request.steps, "guidance_scale": request.guidance, **stop}


def weight_of(value: Any, kind: str, context: AppContext) -> float:
    return decimal(value, f"the weight of {kind}", -context.limits.weight, context.limits.weight)


def nearest(table: Any, vector: Tensor, count: int = 6) -> Near:
    """The concepts nearest to a unit vector (d,), with the table's cosines; none without a table of this width."""
    if table is None or table.points.shape[1] != len(vector):
        return []
    cosines = table.cosines(vector.cpu().unsqueeze(0))[0]
    best = cosines.topk(min(count, len(cosines)))
    return [(table.names[i], float(v)) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def named(found: Near) -> list[dict[str, Any]]:
    """Concepts for JSON."""
    return [{"name": n, "cosine": round(c, 4)} for n, c in found]
