"""Serves the page."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .context import AppContext
from .decode_worker import DecodeWorker
from .engine import Engine
from .limits import Limits


@dataclass
class Served:
    """A page that is being served, until `close`."""

    page: Any
    context: AppContext
    url: str
    shared: str | None
    opening: Any
    before: str | None = None  # GRADIO_TEMP_DIR

    def close(self) -> None:
        """Stops the server and removes every file it held."""
        use_folder(self.before)
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
) -> Served:
    """Starts the page in a thread and returns when it answers; one a process, since Gradio's folder is set by the environment.

    Args:
        host, port: by default Gradio's own: this machine alone, the first free port from 7860.
        share: a public address through Gradio's servers; only when asked for.
        checkpoint: one more checkpoint, beside those of this installation; the page opens on it.
        device, dtype: of every checkpoint.

    Raises:
        InputError: no such checkpoint.
        OSError: the port is taken.
    """
    limits = limits or Limits()
    engine = Engine(limits, device, dtype, checkpoint)
    cache = Path(tempfile.mkdtemp(prefix="unialign-gen-")).resolve()
    before = os.environ.get("GRADIO_TEMP_DIR")
    use_folder(str(cache))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        context = AppContext(engine, DecodeWorker(limits), limits, cache)
        first = next(iter(engine.models))
        engine.worker.submit(engine.pipeline, first)  # meanwhile the page is built; a failure shows at the first request
        served = open_page(context, host, port, share, open_browser)
        served.before = before
        threading.Thread(
            target=warm, args=(context, first, served.opening), daemon=True
        ).start()  # only now: it would take time from the start
        return served
    except BaseException:
        use_folder(before)
        engine.close()
        shutil.rmtree(cache, ignore_errors=True)
        raise


def use_folder(folder: str | None) -> None:
    """Where Gradio keeps files; None for its own choice."""
    if folder is None:
        os.environ.pop("GRADIO_TEMP_DIR", None)
    else:
        os.environ["GRADIO_TEMP_DIR"] = folder


def warm(context: AppContext, label: str, opening: Any) -> None:
    """Loads what the first requests will need, and draws what the page opens on; a failure shows at the first request."""
    with suppress(Exception):
        context.engine.worker.submit(lambda: context.engine.pipeline(label).embed(text="a")).result()
        context.decode_worker.warm()
        context.engine.rate(label)
    opening.draw(context)


def open_page(context: AppContext, host: str | None, port: int | None, share: bool, open_browser: bool) -> Served:
    from starlette.middleware import Middleware

    from .api import build
    from .opening import Opening
    from .page import page_routes
    from .request_filter import RequestFilter

    opening = Opening()
    page = build(context)
    _, url, shared = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        inbrowser=open_browser,
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
        app_kwargs={
            "middleware": [Middleware(RequestFilter, limits=context.limits, cache=context.cache)],
            "routes": page_routes(context, opening),
        },
    )
    return Served(page, context, url, shared, opening)


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
