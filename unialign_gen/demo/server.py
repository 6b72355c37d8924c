"""Serves the page."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from .context import AppContext
from .decode_worker import DecodeWorker
from .engine import Engine
from .limits import Limits
from .request_filter import RequestFilter, access


@dataclass
class Served:
    """A page that is being served, until `close`."""

    page: Any
    context: AppContext
    url: str
    shared: str | None
    before: str | None = None  # GRADIO_TEMP_DIR
    access: logging.Handler | None = None

    def close(self) -> None:
        """Stops the server and removes every file it held."""
        use_folder(self.before)
        if self.access is not None:
            access.removeHandler(self.access)
            self.access.close()
        self.page.close(verbose=False)
        self.context.engine.close()
        self.context.decode_worker.close()
        shutil.rmtree(self.context.cache, ignore_errors=True)


def start(
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    checkpoint: str | None = None,
    device: str = "cpu",
    dtype: Any = None,
    limits: Limits | None = None,
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
        batch: pictures that are drawn in one batch, in place of the limits' own.

    Raises:
        InputError: no such checkpoint.
        OSError: the port is taken, or the log cannot be written.
    """
    limits = limits or Limits()
    limits = limits if batch is None else replace(limits, together=batch)
    log = log_access(access_log)
    engine = Engine(limits, device, dtype, checkpoint)
    cache = Path(tempfile.mkdtemp(prefix="unialign-gen-")).resolve()
    before = os.environ.get("GRADIO_TEMP_DIR")
    use_folder(str(cache))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        context = AppContext(engine, DecodeWorker(limits), limits, cache)
        first = next(iter(engine.models))
        # meanwhile the page is built; a failure shows at the first request
        threading.Thread(target=load_first, args=(engine, first), daemon=True).start()
        launch = {"server_name": host, "server_port": port, "share": share, "inbrowser": open_browser}
        served = open_page(context, auth=list(auth) or None, root_path=root_path, **launch)
        served.before, served.access = before, log
        threading.Thread(target=warm, args=(context, first), daemon=True).start()  # only now: it would take time from the start
        return served
    except BaseException:
        use_folder(before)
        if log is not None:
            access.removeHandler(log)
        engine.close()
        shutil.rmtree(cache, ignore_errors=True)
        raise


def use_folder(folder: str | None) -> None:
    """Where Gradio keeps files; None for its own choice."""
    if folder is None:
        os.environ.pop("GRADIO_TEMP_DIR", None)
    else:
        os.environ["GRADIO_TEMP_DIR"] = folder


def load_first(engine: Engine, label: str) -> None:
    with suppress(Exception):
        engine.pipeline(label)


def warm(context: AppContext, label: str) -> None:
    """Loads what the first requests will need; a failure shows at the first request."""
    with suppress(Exception):
        context.engine.pipeline(label).embed(text="a")
        context.decode_worker.warm()
        context.engine.rate(label)


def log_access(place: str | None) -> logging.Handler | None:
    """Has every request written to a file, which may be moved away and is begun anew then, or to the error output."""
    if place is None:
        return None
    handler: logging.Handler = logging.StreamHandler() if place == "-" else WatchedFileHandler(place, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False
    return handler


def open_page(context: AppContext, **launch: Any) -> Served:
    """Builds the page and serves it; options are those of Gradio's `launch`."""
    from starlette.middleware import Middleware

    from .page import build
    from .theme import CSS, theme

    page = build(context)
    login, health = launch["auth"] is not None, context.engine.health
    guard = Middleware(RequestFilter, limits=context.limits, cache=context.cache, login=login, health=health)
    _, url, shared = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        allowed_paths=[],
        max_file_size=context.limits.file_bytes,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        footer_links=["api"],
        state_session_capacity=1000,
        app_kwargs={"middleware": [guard]},
        theme=theme(),
        css=CSS,
        **launch,
    )
    return Served(page, context, url, shared)


def serve(**options: Any) -> None:
    """Serves until interrupted, and says where; options are those of `start`."""
    import sys

    served = start(**options)
    try:
        sys.stdout.write(f"{served.shared or served.url}\n")
        sys.stdout.flush()
        served.page.block_thread()
    finally:
        served.close()
