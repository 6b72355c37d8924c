"""Measurements of pictures: `eval generation`, `eval distance`, `eval statistics`, `eval report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import guarded, report
from ..errors import InputError
from ..output import check_folder
from .app import check_output, evaluate
from .measuring import ExtractorOption, MethodOption, Out, ResizeOption, WeightsOption, extractors, finish, methods_of
from .options import AcceptLicense, AsJson, Checkpoint, Device, Dtype, Guidance, Source, Steps


@evaluate.command()
@guarded
def generation(
    out: Out,
    dataset: Annotated[str, typer.Option(help="vggsound, table (a manifest) or starter (its own test sets).")] = "vggsound",
    root: Annotated[Path | None, typer.Option(help="The dataset's folder; of a table, its file.")] = None,
    split: Annotated[str | None, typer.Option(help="test or train of vggsound; held_out or cross_source of starter.")] = None,
    csv: Annotated[Path | None, typer.Option(help="VGGSound's list, if it is not in its folder.")] = None,
    captions: Annotated[Path | None, typer.Option(help="A file of captions by id.")] = None,
    clips: Annotated[int, typer.Option(min=2, help="How many, chosen by a hash of their ids.")] = 1024,
    select_seed: Annotated[int, typer.Option(min=0, help="Of that choice.")] = 0,
    kinds: Annotated[
        str, typer.Option("--prompts", help="Kinds of prompts; + joins modalities; image draws the clip's own picture again.")
    ] = "text,audio,text+audio,image",
    method: MethodOption = None,
    checkpoint: Checkpoint = "starter",
    decoder: Annotated[list[str] | None, typer.Option(help="The starter's decoders; can be repeated.")] = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Draws of each prompt.")] = 3,
    frame: Annotated[int, typer.Option(min=0, max=7, help="Which of a video's 8 frames is its picture.")] = 4,
    steps: Steps = None,
    guidance: Guidance = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at a time.")] = 16,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    resize: ResizeOption = "bicubic",
    resamples: Annotated[int, typer.Option(min=2, help="Halves of the clips that intervals of distances come from.")] = 100,
    examples: Annotated[int, typer.Option(min=0, help="Clips shown in the report.")] = 8,
    ways: Annotated[int, typer.Option(min=0, help="Clips of which the way from text to sound is drawn.")] = 2,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Draw every method's prompts and measure the pictures: table 3. Resumes; `torchrun` shares the work.

    Everything is kept in --out: run the same command again to go on, or with more methods or draws to add them.
    """
    from ..checkpoint import find

    methods = tuple(methods_of(method))
    decoders: tuple[str | None, ...] = tuple(decoder or (["kandinsky"] if checkpoint == "starter" else [])) or (None,)
    for name in decoders:
        find(checkpoint, name)
    from ..eval import prompts
    from ..eval.corpora import choose
    from ..eval.study import Plan
    from .loading import check_device, kinds_of_numbers, parse_sources, quiet

    check_folder(out)
    chosen = tuple(prompts.parse_kinds(kinds))
    corpus = choose(dataset, root, split, clips, select_seed, out, csv, captions)
    check_device(device)
    plan = Plan(
        corpus,
        checkpoint,
        decoders,
        methods,
        chosen,
        out,
        seeds,
        frame,
        steps,
        guidance,
        batch,
        device,
        kinds_of_numbers(dtype),
        parse_sources(source),
        accept_license,
    )
    loaded = extractors(extractor or (["judge"] if checkpoint == "starter" else None), weights, resize, device)
    quiet()
    from ..eval import drawing, measure
    from ..eval import ways as between
    from ..eval.generation import describe, run

    study = run(plan)
    if study is not None:
        found: dict[str, Any] = dict(measure.measure(study, loaded, resamples))
        found["examples"] = measure.choose_examples(study, examples)
        found["ways"] = between.draw(study, "text", "audio", ways, 8)
        found["left_out"] = study.left_out
        finish(out, "generation", describe(study), found, as_json)
    drawing.part()


def pictures_or_statistics(place: Path, loaded: Any) -> Any:
    """Statistics of a folder of pictures, or those in a file."""
    from ..eval.features import measure, pictures_in
    from ..eval.moments import Moments

    return measure(loaded, pictures_in(place)) if place.is_dir() else Moments.load(place)


@evaluate.command()
@guarded
def statistics(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    out: Annotated[Path, typer.Option(help="A safetensors file.")],
    extractor: Annotated[str, typer.Option(help="inception, judge, clip or dinov2.")] = "inception",
    weights: WeightsOption = None,
    resize: ResizeOption = "bicubic",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Mean and covariance of pictures' features, in a file that `eval distance` takes in place of the pictures."""
    check_output(out, (".safetensors",))
    loaded = extractors([extractor], weights, resize, device)[extractor]
    found = pictures_or_statistics(pictures, loaded) if pictures.is_dir() else None
    if found is None:
        raise InputError(f"no folder {pictures}: give a folder of pictures")
    found.save(out)
    report(
        {"file": str(out), "n": found.n, **vars(found.source)},
        as_json,
        f"{out}: {found.n} pictures, {found.source.extractor} after {found.source.resize}",
    )


@evaluate.command()
@guarded
def distance(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures, or a file of statistics.")],
    reference: Annotated[Path, typer.Argument(help="What they are compared with: either, too.")],
    extractor: Annotated[str, typer.Option(help="inception (FID, KID), judge, clip or dinov2.")] = "inception",
    weights: WeightsOption = None,
    resize: ResizeOption = "bicubic",
    subset_size: Annotated[int, typer.Option(min=2, help="Of the kernel distance; less where a set is smaller.")] = 1000,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """How far two sets of pictures are apart: FID and its like, and, of two folders, KID, precision, recall and more."""
    loaded = extractors([extractor], weights, resize, device)[extractor]
    from ..eval.sets import compare

    found = compare(pictures, reference, loaded, subset_size)
    lines = [f"{k}: {v:.6g}" if isinstance(v, float) else f"{k}: {v}" for k, v in found.items()]
    report(found, as_json, "\n".join(lines))


@evaluate.command(name="report")
@guarded
def write_report(
    result: Annotated[list[Path], typer.Argument(help="Folders of results, or their result.json.")],
    out: Out,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Evaluation",
    as_json: AsJson = False,
) -> None:
    """Results of several runs on one page: HTML, Markdown, JSON and CSV, the published numbers beside them."""
    from ..eval import report as pages
    from ..eval import results

    check_folder(out)
    found = [(path if path.is_dir() else path.parent, results.read(path)) for path in result]
    files = [str(f) for f in pages.write(found, out, title)]
    report({"files": files}, as_json, "\n".join(files))
