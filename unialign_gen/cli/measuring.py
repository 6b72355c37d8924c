"""Options and steps that the commands of `eval` share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..output import user_cache
from .options import AcceptLicense, Source

if TYPE_CHECKING:
    from ..aligner import Aligner
    from ..eval.extractors import Extractor

EXTRACTORS = ("inception", "judge", "clip", "dinov2")

MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "--methods",
        help="NAME=RUN of `train`, NAME=RUN,RUN,RUN for its seeds, or checkpoint for its own heads. Repeat to compare.",
    ),
]
ExtractorOption = Annotated[
    list[str] | None, typer.Option("--extractor", help=f"{', '.join(EXTRACTORS)}; can be repeated. FID is inception's only.")
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option("--weights", help="EXTRACTOR=PATH: Inception's weight file, or the folder of clip or dinov2."),
]
ResizeOption = Annotated[str, typer.Option("--resize", help="Before Inception: bicubic (Pillow's, antialiased) or tf1.")]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at a picture that cannot be read, instead of leaving it out.")
]
Out = Annotated[Path, typer.Option(help="A folder for the results.")]


@dataclass
class MeasuredSpace:
    """Features of encoders, and the heads that they are measured under."""

    features: Annotated[Path, typer.Option(help="A folder that `unialign-gen extract` made.")]
    method: MethodOption = None
    checkpoint: Annotated[
        str, typer.Option(help="Whose heads stand in for those a method does not have; none for no such heads.")
    ] = "starter"
    source: Source = None
    accept_license: AcceptLicense = False


def extractors(names: list[str] | None, weights: list[str] | None, resize: str, device: str) -> dict[str, Extractor]:
    """The extractors that the options name, loaded."""
    from ..eval.extractors import load

    places: dict[str, Path] = {}
    for entry in weights or []:
        name, equals, value = entry.partition("=")
        if not equals or not value or (name not in EXTRACTORS and ":" not in name):
            raise InputError(f"--weights {entry!r}: write EXTRACTOR=PATH, such as inception=FILE or dinov2=FOLDER")
        places[name] = Path(value).expanduser()
    chosen = list(dict.fromkeys(names or ["inception"]))
    if unused := set(places) - set(chosen):
        raise InputError(f"--weights for {', '.join(sorted(unused))}, but --extractor does not name it")
    return {n: load(n, places.get(n), resize if n == "inception" else "bicubic", device) for n in chosen}


def cache_folder(given: str | None) -> Path | None:
    """Where features of pictures are kept; None for nowhere."""
    if given is not None:
        return None if given == "none" else Path(given).expanduser()
    return user_cache() / "features"


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


def finish(out: Path, protocol: str, about: dict[str, Any], found: dict[str, Any], as_json: bool) -> None:
    """Writes result and report, and shows the tables."""
    from ..data.cache import write_whole
    from ..eval import report, results
    from ..eval.figures import clean

    path = results.write(out, protocol, about, found)
    result = results.read(path)
    write_whole(out / report.PAGE, report.page([(out, result)], report.title_of(result)).encode())
    shown = clean({"protocol": protocol, "about": about, "rows": found["rows"], "out": str(out)})
    typer.echo(json.dumps(shown) if as_json else f"{report.brief(result)}\n\n{path}\n{out / report.PAGE}")
