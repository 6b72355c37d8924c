"""A checkpoint onto the model hub: `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import report, stage
from ..errors import InputError, as_input_error
from .app import app
from .options import AsJson

FOLDERS = ("model_index.json", "head.json", "config.json")  # one of them says that a folder holds a model


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="starter, or a folder that save_pretrained, train or bridge wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the model hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a checkpoint or heads to the model hub, with their card.

    `generate --checkpoint OWNER/NAME` then draws with it. Log in before, with `hf auth login`.
    """
    from ..loading import REPOSITORY, SHIPPED, find

    place = find(folder) if folder in SHIPPED else Path(folder).expanduser()
    if not any(path.name in FOLDERS for path in place.rglob("*.json")):
        raise InputError(f"{folder} holds no model: give a folder that save_pretrained, train or bridge wrote")
    if not REPOSITORY.fullmatch(repository) or "@" in repository:
        raise InputError(f"{repository!r}: name a repository as OWNER/NAME")
    stage(f"uploading {place.name}")
    from huggingface_hub import HfApi, ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    with as_input_error(f"{repository} cannot be written: {{first}}", OSError, HfHubHTTPError, ValueError):
        api.create_repo(repository, exist_ok=True, private=private)
        if not (place / "README.md").is_file():
            ModelCard(CARD.format(name=repository.partition("/")[2], repository=repository)).push_to_hub(repository)
        where = api.upload_folder(folder_path=place, repo_id=repository, ignore_patterns=[".*", "*.part*"])
    report({"repository": repository, "commit": str(where)}, as_json, str(where))


CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
tags: [unialign_gen, audio-to-image, video-to-image, clip]
---

# {name}

A checkpoint of unialign_gen: text, sound, video, pictures and mixes of them to pictures.

    unialign-gen generate --checkpoint {repository} --text "a barking dog"

Licence, training data and limits are not stated yet: say them here before you share it.
"""
