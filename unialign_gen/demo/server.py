"""Serves the page."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .decode_worker import DecodeWorker
from .engine import AppContext, Engine
from .limits import Limits
from .request_filter import RequestFilter, access


@dataclass
class Served:
    """A page that is being served, until `close`, which stops the server and removes every file it held."""

    page: Any
    context: AppContext
    url: str
    shared: str | None
    opening: Any
    close: Callable[[], None] = lambda: None


def start(
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    checkpoint: str | None = None,
    device: str = "cpu",
    dtype: Any = None,
    open_browser: bool = False,
    auth: Sequence[tuple[str, str]] = (),
    root_path: str | None = None,
    access_log: str | None = None,
    batch: int | None = None,
) -> Served:
    """Starts the page in a thread and returns when it answers; one a process, since Gradio's folder is set by the environment.

    Args:
        host, port: by default Gradio's own: this machine alone, the first free port from 7860.
        share: a public address through Gradio's servers; only when asked for.
        checkpoint: one more checkpoint, beside those of this installation; the page opens on it.
        device, dtype: of every checkpoint.
        auth: names and passwords of those who may use the page; everyone, if there are none.
        root_path: where a proxy shows the page, such as `/draw` or a whole address.
        access_log: a file to which every request's address, method, path, status, bytes and seconds are added; `-` for the
            error output.
        batch: pictures that are drawn in one batch, by default as in `Limits`.

    Raises:
        InputError: no such checkpoint.
        OSError: the port is taken, or the log cannot be written.
    """
    limits = Limits() if batch is None else Limits(together=batch)
    few_arenas()
    with ExitStack() as stack:  # where the start fails; else `close` does it
        log_access(access_log, stack)
        engine, decode_worker = Engine(limits, device, dtype, checkpoint), DecodeWorker(limits)
        cache = Path(tempfile.mkdtemp(prefix="unialign-gen-")).resolve()
        stack.callback(shutil.rmtree, cache, ignore_errors=True)
        stack.callback(decode_worker.close)
        stack.callback(engine.close)
        stack.enter_context(patch.dict(os.environ, GRADIO_TEMP_DIR=str(cache), GRADIO_ANALYTICS_ENABLED="False"))
        context = AppContext(engine, decode_worker, limits, cache)
        first = next(iter(engine.models))
        # meanwhile the page is built; a failure shows at the first request
        engine.workers.submit(engine.pipeline, first)
        launch = {"server_name": host, "server_port": port, "share": share, "inbrowser": open_browser}
        served = open_page(context, auth=list(auth) or None, root_path=root_path, **launch)
        stack.callback(served.page.close, verbose=False)
        # only now: it would take time from the start
        threading.Thread(target=warm, args=(context, first, served.opening), daemon=True).start()
        served.close = stack.pop_all().close
    return served


def few_arenas() -> None:
    """Threads share two of glibc's arenas: with one each, every thread keeps the memory that it once needed (`M_ARENA_MAX`)."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-8, 2)


def warm(context: AppContext, label: str, opening: Any) -> None:
    """Loads what the first requests will need, and draws what the page opens on; a failure shows at the first request."""
    with suppress(Exception):
        context.engine.pipeline(label).embed(text="a")
        context.decode_worker.warm()
        context.engine.rate(label)
    opening.draw(context)


def log_access(place: str | None, stack: ExitStack) -> None:
    """Has every request written to a file, which may be moved away and is begun anew then, or to the error output."""
    if place is None:
        return
    handler: logging.Handler = logging.StreamHandler() if place == "-" else WatchedFileHandler(place, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False
    stack.callback(handler.close)
    stack.callback(access.removeHandler, handler)


def open_page(context: AppContext, **launch: Any) -> Served:
    """Builds the page and serves it; options are those of Gradio's `launch`."""
    from starlette.middleware import Middleware

    from .api import build
    from .opening import Opening
    from .page import page_routes

    opening = Opening()
    page = build(context)
    login, health = launch["auth"] is not None, context.engine.health
    guard = Middleware(RequestFilter, limits=context.limits, cache=context.cache, login=login, health=health)
    _, url, shared = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=context.limits.file_bytes,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        state_session_capacity=100,  # each has its own copy of every component, and nothing of ours
        app_kwargs={"middleware": [guard], "routes": page_routes(context, opening)},
        **launch,
    )
    return Served(page, context, url, shared, opening)


def serve(**options: Any) -> None:
    """Serves until interrupted, and says where; options are those of `start`."""
    with closing(start(**options)) as served:
        sys.stdout.write(f"{served.shared or served.url}\n")
        sys.stdout.flush()
        served.page.block_thread()
