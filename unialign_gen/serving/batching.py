"""One thread that computes for many callers: what they ask to have drawn at the same time is drawn in one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..pipelines.output import PictureOutput
from ..pipelines.prompted import PromptedPipeline
from ..request import Request
from .together import Known, Member, batch_key, draw_together, picture_count

T = TypeVar("T")


@dataclass(eq=False)
class Task:
    """Something to be computed; `key` says which drawings it may be drawn with, None with none."""

    run: Callable[[], Any]
    pipeline: PromptedPipeline | None = None
    request: Request = field(default_factory=Request)
    key: Hashable = None
    rows: int = 0
    future: Future[Any] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)  # notes reach the caller's own `collected`
    arrived: float = field(default_factory=time.monotonic)


class BatchingEngine(AbstractContextManager["BatchingEngine"]):
    """Draws requests from any thread; those with the same decoder, steps and size share a denoising batch.

    Requests come in their order: the oldest one's batch is next, with all that go with it. A picture is, up to rounding,
    the one that its request gives alone (`together.draw_together`).

    Args:
        rows: pictures in one batch at most; a request for more is drawn alone.
        linger: seconds that a batch which is not full waits for others, counted from its oldest request.

    Example:
        >>> import unialign_gen
        >>> from unialign_gen.request.arguments import ask
        >>> generate = unialign_gen.load("starter")
        >>> with BatchingEngine() as engine:
        ...     users = [engine.submit(generate, ask(text=t, seed=3, num_inference_steps=1)) for t in ("a cat", "a car")]
        ...     [user.result().images[0].size for user in users]
        [(512, 512), (512, 512)]
    """

    def __init__(self, rows: int = 16, linger: float = 0.02):
        self.rows, self.linger = rows, linger
        self.batches = self.drawn = 0  # batches and pictures so far
        self._calls: deque[Task] = deque()
        self._draws: deque[Task] = deque()
        self._since = 0  # calls since the last batch
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._compute, name="compute", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Requests that wait to be drawn."""
        return len(self._draws)

    def submit(self, pipeline: PromptedPipeline, request: Request) -> Future[PictureOutput]:
        """Has a request drawn; its future can be cancelled until then.

        Raises:
            RuntimeError: the engine is closed.
        """
        rows, key = picture_count(request), batch_key(pipeline, request)
        task = Task(lambda: pipeline.draw(request), pipeline, request, key, rows)
        self._add(task, self._draws)
        return task.future

    def call(self, work: Callable[[], T]) -> T:
        """Runs work on the thread that computes, between two batches, and returns what it returns.

        Raises:
            RuntimeError: the engine is closed.
        """
        if threading.current_thread() is self._thread:
            return work()
        task = Task(work)
        self._add(task, self._calls)
        return task.future.result()

    def close(self) -> None:
        """Ends after what is being computed; what waits is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for task in (*self._calls, *self._draws):
            task.future.cancel()

    def _add(self, task: Task, to: deque[Task]) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            to.append(task)
            self._changed.notify()

    def _compute(self) -> None:
        while True:
            with self._changed:
                tasks = self._next()
            if tasks is None:
                return
            ready = [task for task in tasks if task.future.set_running_or_notify_cancel()]
            if ready and ready[0].pipeline is not None:
                self.batches, self.drawn = self.batches + 1, self.drawn + sum(task.rows for task in ready)
            draw(ready)

    def _next(self) -> list[Task] | None:
        """What to compute now, None at the end. Calls come before a batch, which they may add to; a flood of them does not."""
        while not self._closed:
            if self._calls and (not self._draws or self._since < 2 * self.rows):
                self._since += 1
                return [self._calls.popleft()]
            if not self._draws:
                self._changed.wait()
                continue
            batch: list[Task] = []
            room = self.rows
            for task in self._draws:
                if not batch or (task.key is not None and task.key == batch[0].key and task.rows <= room):
                    batch.append(task)
                    room -= task.rows
            wait = batch[0].arrived + self.linger - time.monotonic()
            if batch[0].key is not None and room > 0 and wait > 0:
                self._changed.wait(wait)
                continue
            for task in batch:
                self._draws.remove(task)  # from the same deque: a caller that waits for the lock is about to add to it
            self._since = 0
            return batch
        return None


def draw(tasks: list[Task]) -> None:
    """Draws tasks of one key together, and alone those that are no batch or cannot be part of it."""
    members: dict[Task, Member] = {}
    known: Known = {}
    for task in tasks if len(tasks) > 1 else ():
        assert task.pipeline is not None
        with suppress(Exception):  # its own fault: drawn alone it says so, to its caller
            members[task] = task.context.run(Member.of, task.pipeline, task.request, known)
    answers: list[PictureOutput | Exception] = []
    if len(members) > 1:
        pipeline = tasks[0].pipeline
        assert pipeline is not None
        with suppress(Exception):  # which of them it was shows when each is drawn alone
            answers = draw_together(pipeline, list(members.values()))
    for task, answer in zip(members, answers, strict=False):
        if isinstance(answer, Exception):
            task.future.set_exception(answer)
        else:
            task.future.set_result(answer)
    for task in tasks:
        if not task.future.done():
            try:
                task.future.set_result(task.context.run(task.run))
            except BaseException as error:  # handed to the thread that waits
                task.future.set_exception(error)
