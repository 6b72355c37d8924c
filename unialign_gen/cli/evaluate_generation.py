"""Measurements of pictures: `eval concepts`, `eval generation`, `eval distance`, `eval statistics`, `eval report`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import report, stage
from ..errors import InputError
from ..notes import collected
from ..output import check_folder, check_output, user_cache, written
from . import options as o
from .app import evaluate
from .loading import load, parse_sources
from .measuring import MethodOption, Out, finish, open_judges

if TYPE_CHECKING:
    from ..eval.extractors import Extractor

EXTRACTORS = ("inception", "judge", "clip", "dinov2")

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


@evaluate.command()
def concepts(
    checkpoint: o.Checkpoint = "starter",
    decoder: o.Decoder = None,
    heads: o.Heads = None,
    data: Annotated[Path | None, typer.Option(help="The data set that the recipe builds.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many prompts of each kind and list.")] = 200,
    best_of: o.BestOf = None,
    prior_strength: o.PriorStrength = None,
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
) -> None:
    """Whether pictures show what prompts say.

    The judge on prompts of the data set, and colour, variety, pairs, counts, read-back and nonsense on fixed lists.
    """
    from ..data.manifest import default_root, read
    from ..loading import find

    find(checkpoint, decoder)
    root = data or default_root()
    read(root)  # says where there is none, before anything is loaded
    pipeline = load(o.Model(checkpoint, decoder=decoder, heads=heads))
    from ..checkpoints.concepts import evaluate as run
    from ..checkpoints.concepts import table

    pipeline.set_progress_bar_config(disable=True)
    result = run(pipeline, root, limit=limit, seed=seed, best_of=best_of, prior_strength=prior_strength)
    report(result, as_json, table(result))


@evaluate.command()
def generation(
    out: Out,
    dataset: Annotated[
        str,
        typer.Option(
            help="vggsound, vggsound-av (clips whose label is heard and seen), table (a manifest) or starter (its test sets)."
        ),
    ] = "vggsound",
    root: Annotated[Path | None, typer.Option(help="The dataset's folder; of a table, its file.")] = None,
    split: Annotated[str | None, typer.Option(help="test or train of vggsound; held_out or cross_source of starter.")] = None,
    csv: Annotated[Path | None, typer.Option(help="VGGSound's list, if it is not in its folder.")] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="VGGSounder's csv, if it is neither in the folder nor installed as vggsounder.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="A file of captions by id.")] = None,
    clips: Annotated[int, typer.Option(min=2, help="How many, chosen by a hash of their ids.")] = 1024,
    select_seed: Annotated[int, typer.Option(min=0, help="Of that choice.")] = 0,
    kinds: Annotated[
        str, typer.Option("--prompts", help="Kinds of prompts; + joins modalities; image draws the clip's own picture again.")
    ] = "text,audio,text+audio,image",
    method: MethodOption = None,
    checkpoint: o.Checkpoint = "starter",
    decoder: Annotated[list[str] | None, typer.Option(help="The starter's decoders; can be repeated.")] = None,
    source: o.Source = None,
    accept_license: o.AcceptLicense = False,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Draws of each prompt.")] = 3,
    frame: Annotated[int, typer.Option(min=0, max=7, help="Which of a video's 8 frames is its picture.")] = 4,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at a time.")] = 16,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="A checkpoint, or the folder of a saved aligner, whose image, text and sound encoders say what pictures show: "
            "class accuracy (AIC), AIS and IIS; can be repeated."
        ),
    ] = None,
    resize: ResizeOption = "bicubic",
    resamples: Annotated[int, typer.Option(min=2, help="Halves of the clips that intervals of distances come from.")] = 100,
    examples: Annotated[int, typer.Option(min=0, help="Clips shown in the report.")] = 8,
    interpolations: Annotated[
        int, typer.Option(min=0, help="Clips that are drawn between their text and their sound, in 8 steps.")
    ] = 2,
    ways: Annotated[int | None, typer.Option(min=0, hidden=True)] = None,
    device: o.Device = "cpu",
    dtype: o.Dtype = "float32",
    as_json: o.AsJson = False,
) -> None:
    """Draw every method's prompts and measure the pictures.

    Table 3 of the paper. Resumes; `torchrun` shares the work.
    Everything is kept in --out: run the same command again to go on, or with more methods or draws to add them.
    """
    from ..loading import check_names, find

    if ways is not None:
        warnings.warn("--ways is now called --interpolations; the old name goes with the next release", stacklevel=2)
        interpolations = ways
    decoders: tuple[str | None, ...] = tuple(decoder or (["kandinsky"] if checkpoint == "starter" else [])) or (None,)
    for name in decoders:
        find(checkpoint, name)
    check_names(device, dtype)
    check_folder(out)
    stage("reading the data set")
    from ..loading.methods import parse

    methods = tuple(parse(method))
    from ..data import vggsounder
    from ..data.extract_config import digest
    from ..eval.study import Plan
    from ..loading import check_device, dtype_of, quiet
    from .evaluate_corpora import choose, parse_kinds

    chosen = tuple(parse_kinds(kinds))
    corpus = choose(dataset, root, split, clips, select_seed, out, csv, captions, annotations)
    device = check_device(device)
    judges = open_judges(judge or [], device)
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
        dtype_of(dtype, device),
        parse_sources(source),
        accept_license,
        vggsounder.find_list(annotations, root) if dataset == "vggsound-av" and root else None,
    )
    loaded = extractors(extractor or (["judge"] if checkpoint == "starter" else None), weights, resize, device)
    quiet()
    from ..eval import measure
    from ..eval.generation import describe, interpolate, run
    from ..eval.study import destroy_process_group

    with collected() as notes:
        study = run(plan)
    if study is not None:
        found: dict[str, Any] = dict(measure.measure(study, loaded, resamples, judges=judges))
        found["examples"] = measure.choose_examples(study, examples)
        found["interpolations"] = interpolate(study, "text", "audio", interpolations, 8)
        found["left_out"] = study.left_out
        about = describe(study)
        if judges:
            about["judges"] = {name: digest(made.part("image").encoder)[:12] for name, made in judges.items()}
        finish(out, "generation", about, found, as_json, notes)
    destroy_process_group()


@evaluate.command()
def statistics(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    out: Annotated[Path, typer.Option(help="A safetensors file.")],
    extractor: Annotated[str, typer.Option(help="inception, judge, clip or dinov2.")] = "inception",
    weights: WeightsOption = None,
    resize: ResizeOption = "bicubic",
    strict: StrictOption = False,
    device: o.Device = "cpu",
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Keep the mean and covariance of pictures' features.

    In a file that `eval distance` takes in place of the pictures.
    """
    check_output(out, (".safetensors",), overwrite=not no_overwrite)
    stage(f"loading {extractor}")
    loaded = extractors([extractor], weights, resize, device)[extractor]
    from ..eval.features import measure

    found = measure(loaded, pictures, strict)
    with written(out) as file:
        found.save(file)
    report(
        {"file": str(out), "n": found.n, **vars(found.source)},
        as_json,
        f"{out}: {found.n} pictures, {found.source.extractor} after {found.source.resize}",
    )


@evaluate.command()
def distance(
    pictures: Annotated[
        Path, typer.Argument(help="A folder of pictures, a file of statistics, or an .npz of pytorch-fid, clean-fid or ADM.")
    ],
    reference: Annotated[Path, typer.Argument(help="What they are compared with: either, too.")],
    extractor: Annotated[
        str, typer.Option(help="inception (FID, KID), judge, clip, dinov2, or an encoder as LIBRARY:NAME.")
    ] = "inception",
    weights: WeightsOption = None,
    resize: ResizeOption = "bicubic",
    subset_size: Annotated[int, typer.Option(min=2, help="Of the kernel distance; less where a set is smaller.")] = 1000,
    cache: Annotated[
        str | None, typer.Option(help="Where features are kept; by default in the user's cache, none keeps nothing.")
    ] = None,
    strict: StrictOption = False,
    device: o.Device = "cpu",
    as_json: o.AsJson = False,
) -> None:
    """Measure how far two sets of pictures are apart.

    FID and its like, and, of two folders, KID, MIND, precision, recall and more.
    """
    stage(f"loading {extractor}")
    loaded = extractors([extractor], weights, resize, device)[extractor]
    from ..eval.features import compare

    folder = user_cache() / "features" if cache is None else Path(cache).expanduser()
    found = compare(pictures, reference, loaded, subset_size, None if cache == "none" else folder, strict)
    lines = [f"{k}: {'not said' if v is None else f'{v:.6g}' if isinstance(v, float) else v}" for k, v in found.items()]
    report(found, as_json, "\n".join(lines))


@evaluate.command(name="report")
def write_report(
    result: Annotated[list[Path], typer.Argument(help="Folders of results, or their result.json.")],
    out: Out,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Evaluation",
    formats: Annotated[list[str] | None, typer.Option("--format", help="Also markdown, latex or csv; can be repeated.")] = None,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Put the results of several runs on one page.

    The published numbers stand beside them: HTML, JSON; Markdown, LaTeX, CSV on request.
    """
    check_folder(out, not no_overwrite)
    stage("reading the results")
    from ..eval import report as pages
    from ..eval import results

    found = [(path if path.is_dir() else path.parent, results.read(path)) for path in result]
    files = [str(f) for f in pages.write(found, out, title, formats or [])]
    report({"files": files}, as_json, "\n".join(files))


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
