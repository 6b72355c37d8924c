"""The part of a configuration that says which corpus: one of the readers, and what it needs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..config import Count, Flag, schema
from ..deprecated import warn_renamed
from ..errors import InputError
from ..notes import note
from . import captions, dataset_corpus, manifest_corpus, retrieval, vggsound, webdataset_corpus
from .corpus import Corpus, Sample
from .files import without_suffix
from .storage import Location

NEEDS = {
    "vggsound": ("root",),
    "manifest": ("manifest",),
    "webdataset": ("root",),
    "dataset": ("root",),
    **dict.fromkeys(retrieval.NAMES, ("root", "annotations")),
}
LABELS = Path("labels")  # in place of a file of captions: each label as a sentence


def current_kind(value: Any) -> Any:
    """The first edition called a `manifest` a `table`."""
    if value != "table":
        return value
    warn_renamed("corpus kind table", "manifest")
    return "manifest"


@schema
class CorpusConfig:
    """Which samples.

    Attributes:
        kind: the reader. `manifest` is a list of one's own, `webdataset` tars, `dataset` rows of Hugging Face datasets.
        root: folder of the media files, on the disk or in a store (`s3://...`); for `webdataset` the tars, such as
            `DIR/{0000..0099}.tar`, for `dataset` a folder or a repository.
        split: of VGGSound or a `dataset`. `rest` of VGGSound is both splits without the `held_out` test clips that `select`
            would choose.
        held_out: how many test clips `rest` leaves out.
        csv: VGGSound's list, if it is not in `root`.
        annotations: captions of a retrieval corpus, in its published form.
        manifest: the file of a `manifest` corpus.
        captions: a file of captions by id, which go before those that the corpus has; `labels` makes a sentence of each label.
        with_sound: only samples that have a sound track; each file is opened to see.
        select: so many of the samples, chosen by a hash of the id and `seed`.
        limit: the first so many.
    """

    kind: Annotated[
        Literal[
            "vggsound", "msrvtt", "didemo", "activitynet", "vatex", "audiocaps", "clotho", "manifest", "webdataset", "dataset"
        ],
        BeforeValidator(current_kind),
    ]
    root: Location | None = None
    split: str | None = "train"
    csv: Location | None = None
    annotations: Location | None = None
    manifest: Location | None = None
    captions: Location | None = None
    with_sound: Flag = False
    select: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    limit: Count | None = None
    held_out: Count = 1024

    def __post_init__(self) -> None:
        for name in NEEDS[self.kind]:
            if getattr(self, name) is None:
                raise InputError(f"{name} is missing: {self.kind} needs it")


def read_corpus(config: CorpusConfig) -> Corpus:
    """The samples that the configuration names.

    Raises:
        InputError: a folder or file is not there or cannot be understood, no sample's files are there, or the captions are
            of none of the samples.
    """
    if config.kind == "vggsound":
        root = config.root or ""
        if config.split == "rest":
            both = vggsound.read(root, None, config.csv)
            test = vggsound.select(vggsound.read(root, "test", config.csv), config.held_out, config.seed)
            left_out = set(test.ids)
            kept = [sample for sample in both.samples if sample.id not in left_out]
            corpus = Corpus(f"{both.name} without {test.name}", kept, both.missing)
        else:
            corpus = vggsound.read(root, config.split, config.csv)
    elif config.kind == "manifest":
        corpus = manifest_corpus.read(config.manifest or "")
    elif config.kind == "webdataset":
        corpus = webdataset_corpus.read(str(config.root))
    elif config.kind == "dataset":
        corpus = dataset_corpus.read(config.root or "", config.split)
    else:
        corpus = retrieval.read(config.kind, config.annotations or "", config.root or "")
    corpus = captioned(corpus, config.captions)
    if config.with_sound:
        corpus = retrieval.with_sound(corpus)
    if config.select is not None:
        corpus = vggsound.select(corpus, config.select, config.seed)
    corpus = replace(corpus, samples=corpus.samples[: config.limit])
    if not corpus.samples:
        first = f", the first: {corpus.missing[0].reason}" if corpus.missing else ""
        raise InputError(f"{corpus.name}: none of its {len(corpus.missing)} samples is there{first}")
    return corpus


def captioned(corpus: Corpus, path: Path | None) -> Corpus:
    """The corpus with the captions of a file beside it, where that has some, or with its labels as sentences.

    Raises:
        InputError: the file has captions of none of the samples, or there are no labels.
    """
    if path is None or not corpus.samples:
        return corpus
    if path == LABELS:
        if not any(s.label for s in corpus.samples):
            raise InputError(f"captions: labels: {corpus.name} has no labels, name a file of captions")
        said = [replace(s, text=(captions.sentence(s.label),)) if s.label else s for s in corpus.samples]
        return replace(corpus, samples=said)
    written = captions.read(path)
    found = [next((written[name] for name in caption_ids(s) if written.get(name)), ()) for s in corpus.samples]
    count = sum(map(bool, found))
    if not count:
        first = next(iter(written), None)
        raise InputError(
            f"captions: {path} has captions of none of the {len(found)} samples of {corpus.name}: its first id is {first!r}, "
            f"theirs {corpus.samples[0].id!r}"
        )
    if count < len(found):
        note("captions", f"{path} has captions of {count} of the {len(found)} samples of {corpus.name}")
    return replace(corpus, samples=[replace(s, text=text or s.text) for s, text in zip(corpus.samples, found, strict=True)])


def caption_ids(sample: Sample) -> list[str]:
    """The ids that a sample's captions may have: its own, without a file's suffix, and without a clip's start, `_SSSSSS`."""
    return [sample.id, without_suffix(sample.id), re.sub(r"_\d{6}\Z", "", sample.id)]
