"""Measurements of embeddings: `eval retrieval`, `gap`, `mteb` and `export`; and of what decoders keep of them: `decoders`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import report, stage
from ..errors import InputError, as_input_error
from ..notes import collected
from ..output import check_folder
from .app import evaluate
from .loading import load, parse_sources
from .measuring import MethodOption, Out, finish, open_aligner_of
from .options import AcceptLicense, AsJson, Checkpoint, Device, Dtype, Model, Seed, Source, Steps

if TYPE_CHECKING:
    from torch import Tensor

    from ..aligner import Aligner
    from ..data.cache import FeatureCache
    from ..loading.methods import Method


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


def opened(space: MeasuredSpace, out: Path) -> tuple[list[Method], FeatureCache, Aligner | None]:
    """What `retrieval` and `gap` do first."""
    check_folder(out)
    stage("opening the features")
    from ..data.cache import FeatureCache
    from ..loading import open_aligner
    from ..loading.methods import parse

    methods, cache = parse(space.method), FeatureCache.open(space.features)
    if space.checkpoint == "none":
        return methods, cache, None
    return methods, cache, open_aligner(space.checkpoint, parse_sources(space.source), space.accept_license)


def about_of(cache: FeatureCache, checkpoint: str, methods: list[Method], modalities: list[str]) -> dict[str, Any]:
    from ..loading.methods import digest

    corpus = cache.index["corpus"]
    return {
        "dataset": corpus["name"],
        "clips": corpus["samples"],
        "digest": corpus["ids"],
        "unreadable": sum(p["kind"] != "noted" for p in cache.problems()),
        "checkpoint": checkpoint,
        "methods": {m.name: [digest(r) for r in m.runs] for m in methods},
        "modalities": modalities,
    }


def read_ids(path: Path, known: list[str]) -> list[str]:
    """The ids in a file, one a line, all of them known."""
    with as_input_error(f"--ids {path}: {{error}}", OSError, ValueError):
        wanted = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    unknown = sorted(set(wanted) - set(known))
    if unknown or not wanted:
        example = f", such as {unknown[0]}" if unknown else ""
        raise InputError(f"--ids {path}: {len(unknown)} of {len(wanted)} are not in the features{example}")
    return wanted


def read_scores(path: Path) -> Tensor:
    """The only tensor in a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    said = f"--rerank {path}: a safetensors file with one tensor (texts, clips) is needed: {{error}}"
    with as_input_error(said, OSError, ValueError, SafetensorError):
        (scores,) = load_file(path).values()
    return scores.float()


@evaluate.command()
def retrieval(
    space: MeasuredSpace,
    out: Out,
    modality: Annotated[list[str] | None, typer.Option(help="What is looked for by text; all that the features have.")] = None,
    dsl: Annotated[
        float | None, typer.Option(help="Also rows +DSL, the dual softmax, with this scale (1 as published).")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Also with 10, 30, 50, 70 and 90 % of the clips' modalities taken away.")
    ] = False,
    ids: Annotated[Path | None, typer.Option(help="A file of the samples' ids to look among, one a line.")] = None,
    rerank: Annotated[
        Path | None,
        typer.Option(help="A safetensors file of another model's scores (texts, clips): rows +rerank, the first 50 by them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how texts find clips and clips texts.

    R@1, R@5, R@10, mAP, nDCG and median rank: each modality alone, all together by centroid, volume and query-weighted
    centroid, and what together gains.
    """
    methods, cache, aligner = opened(space, out)
    there = [m for m in cache.modalities if m != "text"]
    others = list(dict.fromkeys(modality or [m for m in ("video", "audio", "image", *there) if m in there]))
    if not modality and "video" in others and "image" in others:
        others.remove("image")
    from ..eval.search import evaluate as run

    about = about_of(cache, space.checkpoint, methods, ["text", *others])
    if left_out := [m for m in there if m not in others]:
        warnings.warn(f"{', '.join(left_out)} is left out: name it with --modality to look for it too", stacklevel=2)
        about["left out"] = left_out
    chosen = frozenset(read_ids(ids, cache.ids)) if ids else None
    if ids:
        about["ids"] = f"{len(chosen or ())} of {ids.name}"
    named = {"dataset": about["dataset"], "checkpoint": space.checkpoint}
    with collected() as notes:
        found = run(cache, methods, others, aligner, dsl, missing, chosen, read_scores(rerank) if rerank else None, **named)
    about["captions"] = found.pop("captions")
    finish(out, "retrieval", about, found, as_json, notes)


@evaluate.command()
def gap(
    space: MeasuredSpace,
    out: Out,
    modality: Annotated[list[str] | None, typer.Option(help="Two or more; all that the features have.")] = None,
    anchor: Annotated[str | None, typer.Option(help="Where the conflicts are measured; image, or video.")] = None,
    tau: Annotated[float, typer.Option(min=1e-4, help="Temperature of the conflicts.")] = 0.07,
    bandwidth: Annotated[float, typer.Option(min=1e-3, help="Of the Hoelder divergence's kernels.")] = 0.3,
    limit: Annotated[int, typer.Option(min=16, help="At most so many samples.")] = 4096,
    resamples: Annotated[int, typer.Option(min=2, help="Halves of the samples that the intervals come from.")] = 40,
    plot: Annotated[int, typer.Option(min=0, help="Samples of each modality on the t-SNE map; 0 for no map.")] = 300,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how far apart modalities lie.

    Gap, conflicts zeta and chi, Hoelder divergence, alignment, uniformity, t-SNE.
    With labels also clustering, linear probe and zero-shot classification.
    """
    methods, cache, aligner = opened(space, out)
    modalities = modality or list(cache.modalities)
    from ..eval import gap as protocol

    about = about_of(cache, space.checkpoint, methods, modalities) | {
        "anchor": protocol.choose_anchor(anchor, modalities),
        "tau": tau,
        "bandwidth": bandwidth,
        "samples": f"at most {limit}, seed {seed}",
    }
    named = {"dataset": about["dataset"], "checkpoint": space.checkpoint}
    with collected() as notes:
        found: dict[str, Any] = dict(
            protocol.evaluate(cache, methods, modalities, aligner, anchor, tau, bandwidth, limit, resamples, seed, **named)
        )
    if plot:
        said = f"t-SNE of {plot} samples of each modality, seed {seed}, first run"
        drawn = {m.name: protocol.embed(cache, modalities, m.runs[0], aligner, plot, seed)[0] for m in methods}
        found["maps"] = [{"title": f"{name}: {said}", "points": protocol.project(z, seed)} for name, z in drawn.items()]
    finish(out, "gap", about, found, as_json, notes)


NEEDS_MTEB = "needs mteb and sentence-transformers: pip install mteb sentence-transformers"


@evaluate.command()
def mteb(
    out: Out,
    task: Annotated[list[str], typer.Option(help="A task of mteb by its name, such as VGGSoundAVRetrieval; can be repeated.")],
    checkpoint: Checkpoint = "starter",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Run tasks of mteb on a checkpoint.

    Tasks of text, sound, pictures and video, run by mteb itself, also on the folder of a saved aligner.
    """
    check_folder(out)
    stage("loading mteb")
    with as_input_error(f"eval mteb {NEEDS_MTEB}", ImportError):
        from ..eval import mteb as protocol

    name = Path(checkpoint).name
    rows = protocol.evaluate(open_aligner_of(checkpoint).to(device), name, task, out / "mteb")
    about = {"dataset": ", ".join(task), "checkpoint": checkpoint, "mteb": protocol.mteb.__version__}
    finish(out, "mteb", about, {"rows": rows}, as_json)


@evaluate.command(name="export")
def export_model(
    out: Out,
    checkpoint: Checkpoint = "starter",
    as_json: AsJson = False,
) -> None:
    """Save encoders and heads for sentence-transformers.

    SentenceTransformer(FOLDER, trust_remote_code=True) loads them.
    """
    check_folder(out)
    stage(f"loading {checkpoint}")
    with as_input_error(f"eval export {NEEDS_MTEB}", ImportError):
        from ..sentence_transformer import export

    report({"folder": str(export(open_aligner_of(checkpoint), out))}, as_json, str(out))


@evaluate.command()
def decoders(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME/DECODER, repeated; every decoder of pictures that is on this disk by default."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of real pictures; the 64 photographs of the package by default.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many of them.")] = 64,
    seeds: Annotated[int, typer.Option(min=2, help="Drawings of each.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at a time.")] = 8,
    steps: Steps = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """What survives of a point, decoder by decoder.

    Read-back, distance to real pictures, variety over seeds, speed and memory.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    stage("looking at what is on this disk")
    from ..loading import DECODERS, describe
    from ..loading.scale import pictures_in, shipped_pictures

    names = checkpoint or [
        f"{row['name']}/{decoder}" if decoder else row["name"]
        for row in describe()
        if row["on_disk"] and not row.get("moving")
        for decoder in row.get("decoders", [None])
    ]
    if source and len(names) != 1:
        raise InputError(f"--source is for one decoder, here are {len(names)}: name it with --checkpoint")
    files = (list(shipped_pictures()) if images is None else pictures_in(images))[:limit]
    from ..checkpoints.decoders import evaluate as run
    from ..checkpoints.decoders import table
    from ..eval.judge import Judge
    from ..media import load_image

    pictures, judge = [load_image(file) for file in files], Judge.from_folder()
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        place, _, last = name.rpartition("/")
        place, decoder = (place, last) if last in DECODERS and place else (name, None)
        pipeline = load(Model(place, source, accept_license, device, dtype, decoder))
        found[name] = run(pipeline, pictures, judge, seeds, batch, num_inference_steps=steps)
    report({"decoders": found}, as_json, table(found))
