"""The page: `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import stage
from ..errors import InputError
from .app import app
from .options import Device, Dtype


@app.command()
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default the first free one from 7860.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="One more checkpoint: a folder that save_pretrained wrote.")] = None,
    share: Annotated[bool, typer.Option("--share", help="Ask Gradio for a public address, for three days at most.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    auth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER:PASSWORD",
            envvar="UNIALIGN_GEN_AUTH",
            help="Only for these users; repeatable. As a variable, separated by spaces, it is not seen by other users.",
        ),
    ] = None,
    root_path: Annotated[str | None, typer.Option(help="Where a proxy shows the page, such as /draw.")] = None,
    access_log: Annotated[str | None, typer.Option(help="A file for a line on every request; - for the error output.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=1024, help="Pictures drawn in one batch; 16 by default.")] = None,
) -> None:
    """Serve the page, for a browser and as an API."""
    from ..loading import PUBLISHED, SHIPPED, check_device, check_names, dtype_of, find

    if checkpoint is not None and checkpoint not in SHIPPED + PUBLISHED:
        find(checkpoint)
    users = [(name, password) for name, _, password in (entry.partition(":") for entry in auth or ())]
    if not all(name and password for name, password in users) or len(dict(users)) < len(users):
        raise InputError("--auth: write USER:PASSWORD, each user once")  # without what was given: it may be a password
    check_names(device, dtype)
    stage("starting the page")
    device = check_device(device)
    kind = dtype_of(dtype, device)
    from ..demo.server import serve

    try:
        serve(
            host=host,
            port=port,
            share=share,
            checkpoint=checkpoint,
            device=device,
            dtype=kind,
            open_browser=open_browser,
            auth=users,
            root_path=root_path,
            access_log=access_log,
            batch=batch,
        )
    except OSError as error:
        if access_log is not None and error.filename is not None:
            raise InputError(f"--access-log {access_log}: {error.strerror}") from error
        raise InputError(f"--port {port}: it is in use, give another one") from error
