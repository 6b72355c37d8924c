"""Options and steps that the commands of `eval` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import report
from ..errors import InputError
from ..notes import Note, collected

if TYPE_CHECKING:
    from ..aligner import Aligner

MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "--methods",
        help="NAME=RUN of `train`, NAME=RUN,RUN,RUN for its seeds, or checkpoint for its own heads. Repeat to compare.",
    ),
]
Out = Annotated[Path, typer.Option(help="A folder for the results.")]


def open_judges(names: list[str], device: str) -> dict[str, Aligner]:
    """Aligners that say what pictures show, by a short name.

    Each is a checkpoint, the folder of a saved aligner, or an encoder of pictures and texts as LIBRARY:NAME.
    """
    short = [name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    if len(set(short)) < len(short):
        raise InputError(f"--judge: each needs a name of its own, got {', '.join(short)}")
    return {name: open_aligner_of(place).to(device) for name, place in zip(short, names, strict=True)}


def open_aligner_of(name: str) -> Aligner:
    """The aligner of a checkpoint, a folder or an encoder; see `open_judges`."""
    from torch import nn

    from ..aligner import Aligner, Part
    from ..encoders import load_encoder
    from ..encoders.registry import NOWHERE
    from ..loading import open_aligner

    folder = Path(name).expanduser()
    if (folder / Aligner.config_name).is_file() and not (folder / "aligner").is_dir():
        return Aligner.from_pretrained(folder)
    if ":" not in name:
        return open_aligner(name)
    sides = {kind: load_encoder(NOWHERE, config={"encoder": name, "modality": kind}) for kind in ("image", "text")}
    made = Aligner(sides["image"].dim, [])
    for kind, encoder in sides.items():
        made.add_part(kind, Part(encoder, nn.Identity()))
    return made.eval()


def finish(
    out: Path, protocol: str, about: dict[str, Any], found: dict[str, Any], as_json: bool, notes: Sequence[Note] = ()
) -> None:
    """Writes result and report, and shows the tables; the notes are kept with the result."""
    from ..data.cache import write_whole
    from ..eval import report as pages
    from ..eval import results
    from ..eval.figures import clean

    if notes:
        about = about | {"notes": [str(n) for n in notes]}
    with collected() as more:
        path = results.write(out, protocol, about, found)
    result = results.read(path)
    write_whole(out / pages.PAGE, pages.page([(out, result)], pages.title_of(result)).encode())
    shown = clean({"protocol": protocol, "about": about, "rows": found["rows"], "out": str(out)})
    report(shown, as_json, f"{pages.brief(result)}\n\n{path}\n{out / pages.PAGE}", [*notes, *more])
