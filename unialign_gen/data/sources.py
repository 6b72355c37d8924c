"""The part of a configuration that says which corpus: one of the readers, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import InputError
from . import captions, retrieval, table, vggsound
from .corpus import Corpus
from .files import without_suffix

NEEDS = {
    "vggsound": ("root",),
    "table": ("manifest",),
    **dict.fromkeys(retrieval.NAMES, ("root", "annotations")),
}


@dataclass
class CorpusConfig:
    """Which samples.

    Attributes:
        kind: the reader. `table` is a manifest of one's own.
        root: folder of the media files.
        split: of VGGSound.
        csv: VGGSound's list, if it is not in `root`.
        annotations: captions of a retrieval corpus, in its published form.
        manifest: the file of a `table`.
        captions: a file of captions by id, in place of those that the corpus has.
        with_sound: only samples that have a sound track; each file is opened to see.
        select: so many of the samples, chosen by a hash of the id and `seed`.
        limit: the first so many.
    """

    kind: Literal["vggsound", "msrvtt", "didemo", "activitynet", "audiocaps", "table"]
    root: Path | None = None
    split: Literal["train", "test"] | None = "train"
    csv: Path | None = None
    annotations: Path | None = None
    manifest: Path | None = None
    captions: Path | None = None
    with_sound: bool = False
    select: int | None = None
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in NEEDS[self.kind]:
            if getattr(self, name) is None:
                raise InputError(f"{name} is missing: {self.kind} needs it")


def read_corpus(config: CorpusConfig) -> Corpus:
    """The samples that the configuration names.

    Raises:
        InputError: a folder or file is not there or cannot be understood, or no sample's files are there.
    """
    if config.kind == "vggsound":
        corpus = vggsound.read(config.root or "", config.split, config.csv, config.captions)
    elif config.kind == "table":
        corpus = recaptioned(table.read(config.manifest or ""), config.captions)
    else:
        corpus = recaptioned(retrieval.read(config.kind, config.annotations or "", config.root or ""), config.captions)
    if config.with_sound:
        corpus = retrieval.with_sound(corpus)
    if config.select is not None:
        corpus = vggsound.select(corpus, config.select, config.seed)
    if config.limit is not None:
        corpus = corpus.first(config.limit)
    if not corpus.samples:
        first = f", the first: {corpus.missing[0].reason}" if corpus.missing else ""
        raise InputError(f"{corpus.name}: none of its {len(corpus.missing)} samples is there{first}")
    return corpus


def recaptioned(corpus: Corpus, path: Path | None) -> Corpus:
    """The corpus with the captions of a side file, where that has some."""
    written = captions.read(path)
    named = [(s, written.get(s.id) or written.get(without_suffix(s.id))) for s in corpus.samples]
    return replace(corpus, samples=[replace(s, text=text or s.text) for s, text in named])
