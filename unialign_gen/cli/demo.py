"""The page: `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import guarded, stage
from ..errors import InputError
from .app import app
from .options import Device, Dtype


@app.command()
@guarded
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default the first free one from 7860.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="One more checkpoint: a folder that save_pretrained wrote.")] = None,
    share: Annotated[bool, typer.Option("--share", help="Ask Gradio for a public address, for three days at most.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Serve the page, for a browser and as an API."""
    from ..loading import PUBLISHED, SHIPPED, check_device, check_names, dtype_of, find

    if checkpoint is not None and checkpoint not in SHIPPED + PUBLISHED:
        find(checkpoint)
    check_names(device, dtype)
    stage("starting the page")
    check_device(device)
    kind = dtype_of(dtype)
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
        )
    except OSError as error:
        raise InputError(f"--port {port}: it is in use, give another one") from error
