"""The page: `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ..console import stage
from ..errors import InputError
from .app import app
from .options import Device, Dtype


@dataclass
class Page:
    """How the page is served, see `demo.server.start`."""

    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")] = "127.0.0.1"
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default the first free one from 7860.")] = None
    checkpoint: Annotated[str | None, typer.Option(help="One more checkpoint: a folder that save_pretrained wrote.")] = None
    share: Annotated[bool, typer.Option("--share", help="Ask Gradio for a public address, for three days at most.")] = False
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False
    device: Device = "cpu"
    dtype: Dtype = "float32"
    auth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER:PASSWORD",
            envvar="UNIALIGN_GEN_AUTH",
            help="Only for these users; repeatable. As a variable, separated by spaces, it is not seen by other users.",
        ),
    ] = None
    root_path: Annotated[str | None, typer.Option(help="Where a proxy shows the page, such as /draw.")] = None
    access_log: Annotated[str | None, typer.Option(help="A file for a line on every request; - for the error output.")] = None
    batch: Annotated[int | None, typer.Option(min=1, max=1024, help="Pictures drawn in one batch; 16 by default.")] = None


@app.command()
def demo(page: Page) -> None:
    """Serve the page, for a browser and as an API."""
    from ..loading import PUBLISHED, SHIPPED, check_device, check_names, dtype_of, find

    if page.checkpoint is not None and page.checkpoint not in SHIPPED + PUBLISHED:
        find(page.checkpoint)
    users = [(name, password) for name, _, password in (entry.partition(":") for entry in page.auth or ())]
    if not all(name and password for name, password in users) or len(dict(users)) < len(users):
        raise InputError("--auth: write USER:PASSWORD, each user once")  # without what was given: it may be a password
    check_names(page.device, page.dtype)
    stage("starting the page")
    device = check_device(page.device)
    options = {**vars(page), "device": device, "dtype": dtype_of(page.dtype, device), "auth": users}
    from ..demo.server import serve

    try:
        serve(**options)
    except OSError as error:
        if page.access_log is not None and error.filename is not None:
            raise InputError(f"--access-log {page.access_log}: {error.strerror}") from error
        asked = "the page cannot be served" if page.port is None else f"--port {page.port}: it is in use, give another one"
        raise InputError(f"{asked} ({' '.join(str(error).split())})") from error
