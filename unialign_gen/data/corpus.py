"""What every reader of a corpus returns: samples whose files are there, and a list of those that are not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .storage import File


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a corpus. Paths are absolute; a clip with sound has the same file in `audio` and `video`.

    A file is a path, or where it is not on the disk by itself, a `storage.Stored`.

    Attributes:
        text: its captions.
        label: the class it belongs to, where the corpus has classes.
        extra: files of further modalities, by the modality's name.
        absent: why a modality that is listed is not there, by its name.
    """

    id: str
    text: tuple[str, ...] = ()
    audio: File | None = None
    video: File | None = None
    image: File | None = None
    label: str | None = None
    extra: Mapping[str, File] = field(default_factory=dict, hash=False)
    absent: Mapping[str, str] = field(default_factory=dict, hash=False)

    def file(self, modality: str) -> File | None:
        """The file of a modality other than text, if it has one."""
        return getattr(self, modality) if modality in ("audio", "video", "image") else self.extra.get(modality)


@dataclass(frozen=True, slots=True)
class Missing:
    """A listed sample that is left out, and why."""

    id: str
    reason: str


@dataclass
class Corpus:
    """Samples in the order of their list, and what of the list is not there."""

    name: str
    samples: list[Sample]
    missing: list[Missing] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, listed: Iterable[Sample]) -> Corpus:
        """The samples that have a text or a file; the others are missing."""
        corpus = cls(name, [])
        for sample in listed:
            if sample.text or sample.audio or sample.video or sample.image or sample.extra:
                corpus.samples.append(sample)
            else:
                corpus.missing.append(Missing(sample.id, next(iter(sample.absent.values()), "no text and no file")))
        return corpus

    def lacks(self, modality: str) -> str:
        """What to say where no sample has a modality: the first reason why not, and what there is."""
        reason = next((f" ({s.absent[modality]})" for s in self.samples if modality in s.absent), "")
        found = {name for s in self.samples for name in ("text", "audio", "video", "image") if getattr(s, name)}
        there = sorted(found | {name for s in self.samples for name in s.extra})
        return f"no sample of {self.name} has {modality}{reason}; they have {', '.join(there)}"

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    def digest(self) -> str:
        """SHA-256 of the samples' ids, joined by newlines: equal digests are the same samples in the same order."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()
