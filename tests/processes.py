"""Processes of tests: forked from a server that has no threads, limited in time, and gone when their test ends.

The process of the tests itself must never be forked. By then it has threads, and a lock that one of them holds at
that moment stays locked in the child for ever.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

import pytest

LIMIT = 60.0  # seconds
MODULES = (  # imported once, by the server
    "torch.distributed.fsdp",
    "torchmetrics.image",
    "transformers.models.bert.modeling_bert",
    "timm",
    "s3fs",
    "pytest",
    "unialign_gen.cli",
    "unialign_gen.data.extract",
    "unialign_gen.encoders",
    "unialign_gen.pipelines",
    "unialign_gen.training.train",
)


def server() -> multiprocessing.context.ForkServerContext:
    """The one server of this run; it is a new program, so that it may be started at any time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(MODULES))
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # so that no import starts a thread
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return context


class Child:
    """A process that runs `target(*args)`, for at most `limit` seconds.

    At the limit it says where each of its threads is and ends, whatever it waits for.
    """

    def __init__(self, target: Callable[..., Any], args: tuple, limit: float, environment: dict[str, str]):
        self.limit, self.kept = limit, tempfile.TemporaryDirectory()
        self.folder = Path(self.kept.name)
        whole = {**os.environ, **environment}
        self.process = server().Process(target=begin, args=(self.folder, limit, whole, target, args), daemon=True)
        self.process.start()

    @property
    def stdout(self) -> str:
        return self.written("stdout")

    @property
    def stderr(self) -> str:
        return self.written("stderr")

    def written(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def alive(self) -> bool:
        return self.process.is_alive()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def wait(self) -> int:
        """Its exit code, negative where a signal ended it."""
        self.process.join(self.limit + 5)
        if self.alive():
            self.kill()
        return self.process.exitcode


def begin(folder: Path, limit: float, environment: dict[str, str], target: Callable[..., Any], args: tuple) -> None:
    """What every process does first: the server's files, environment and time are not its own."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    faulthandler.dump_traceback_later(limit, exit=True)
    os.environ.clear()
    os.environ.update(environment)

    import torch

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    target(*args)


def start(target: Callable[..., Any], *args: Any, limit: float = LIMIT, **environment: str) -> Child:
    """A process of its own; `target` is a function of a module, and `environment` is added to this process's."""
    return Child(target, args, limit, environment)


def finish(*children: Child) -> None:
    """Waits for all to end well; when one does not, kills the others and fails with what they wrote."""
    until = time.monotonic() + max(child.limit for child in children) + 5
    while any(child.alive() for child in children) and not any(child.process.exitcode for child in children):
        connection.wait([child.process.sentinel for child in children if child.alive()], until - time.monotonic())
        if time.monotonic() > until:
            break
    end()
    if any(child.process.exitcode for child in children):
        said = (f"process {i} ended with {c.process.exitcode}:\n{c.stderr[-3000:]}" for i, c in enumerate(children))
        pytest.fail("\n".join(said), pytrace=False)


def together(world: int, target: Callable[..., Any], *args: Any, limit: float = LIMIT) -> None:
    """Runs `target(rank, world, *args)` in so many processes."""
    finish(*(start(target, rank, world, *args, limit=limit) for rank in range(world)))


def program(*words: str | Path, limit: float = LIMIT, **environment: str) -> Child:
    """`unialign-gen WORDS` in a process of its own."""
    return start(run_program, [str(word) for word in words], limit=limit, **environment)


def run_program(words: list[str]) -> None:
    from unialign_gen.cli import main

    sys.argv = ["unialign-gen", *words]
    main()


def end() -> None:
    """No process that was started here goes on."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


def exit_within(seconds: float) -> None:
    """What keeps the interpreter from its end, such as a thread that others wait for, is named and ended with it."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
