"""Processes of tests: forked from a server that has no threads, limited in time, and gone when their test ends.

The process of the tests itself must never be forked. By then it has threads, and a lock that one of them holds at
that moment stays locked in the child for ever.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

import pytest

LIMIT = 100.0  # seconds, less than pytest's own limit for a test
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # so that no import starts a thread
        forkserver.ensure_running()
    return context


class Child:
    """A process that runs `target(*args)`, for at most `limit` seconds.

    At the limit it writes where each of its threads is and ends, whatever it waits for.
    """

    def __init__(self, target: Callable[..., Any], args: tuple, limit: float, threads: int, environment: dict[str, str]):
        self.limit, self.kept = limit, tempfile.TemporaryDirectory()
        self.folder = Path(self.kept.name)
        for name in ("stdout", "stderr"):
            (self.folder / name).touch()
        given = (self.folder, limit, threads, {**os.environ, **environment}, target, args)
        self.process = server().Process(target=begin, args=given, daemon=True)
        self.process.start()  # returns when the server has forked it

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

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
        self.kill()
        return self.process.exitcode


def begin(
    folder: Path, limit: float, threads: int, environment: dict[str, str], target: Callable[..., Any], args: tuple
) -> None:
    """What every process does first: the server's files, environment and time are not its own."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY), number)
    faulthandler.dump_traceback_later(limit, exit=True)
    os.environ.clear()
    os.environ.update(environment)

    import torch

    torch.set_num_threads(threads)
    target(*args)


def start(
    target: Callable[..., Any], *args: Any, limit: float = LIMIT, threads: int = 1, environment: dict[str, str] | None = None
) -> Child:
    """A process of its own; `target` is a function of a module, and `environment` is added to this process's."""
    return Child(target, args, limit, threads, environment or {})


def program(*words: str | Path, **options: Any) -> Child:
    """`unialign-gen WORDS` in a process of its own; `options` are those of `start`."""
    return start(run_program, [str(word) for word in words], **options)


def run_program(words: list[str]) -> None:
    from unialign_gen.cli import main

    sys.argv = ["unialign-gen", *words]
    main()


def finish(*children: Child) -> None:
    """Waits for all to end well; when one does not, kills the others and fails with what they wrote."""
    until = time.monotonic() + max(child.limit for child in children) + 5
    while (alive := [c.process.sentinel for c in children if c.alive()]) and time.monotonic() < until:
        if any(child.process.exitcode for child in children):
            break
        connection.wait(alive, until - time.monotonic())
    end()
    if any(child.process.exitcode for child in children):
        said = (f"process {i} ended with {c.process.exitcode}:\n{c.stderr[-3000:]}" for i, c in enumerate(children))
        pytest.fail("\n".join(said), pytrace=False)


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ranks(world: int) -> list[dict[str, str]]:
    """What torchrun sets in the environment of each of so many processes."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def together(world: int, target: Callable[..., Any], *args: Any, limit: float = LIMIT) -> None:
    """Runs `target(rank, world, *args)` in so many processes, as torchrun would."""
    each = enumerate(ranks(world))
    finish(*(start(target, rank, world, *args, limit=limit, environment=names) for rank, names in each))


def end() -> None:
    """No process that was started here goes on."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


def exit_within(seconds: float) -> None:
    """What keeps the interpreter from its end, such as a thread that others wait for, is named and ended with it."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
