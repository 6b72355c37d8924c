"""Inputs of encoders that are trained too: decoded anew at every step, since features of a moving encoder cannot be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..data.corpus import Sample
from ..data.decode import prepare
from ..data.extract import content
from ..data.sources import read_corpus
from ..encoders.base import Encoder
from ..errors import InputError
from .config import TrainConfig
from .features import Source
from .rows import Rows


class RawInputs:
    """Raw inputs of the trained encoders by cache and sample.

    What cannot be decoded counts as lacking the modality, and is kept in `problems`; nothing is put in its place.

    Raises:
        InputError: a cache has no corpus, or holds samples that its corpus has not.
    """

    def __init__(self, config: TrainConfig, encoders: Mapping[str, Encoder], sources: Mapping[str, Source]):
        self.encoders = dict(encoders)
        self.samples: dict[str, list[Sample]] = {}
        self.contents: dict[str, str] = {}
        self.problems: dict[tuple[str, str], dict[str, str]] = {}
        for name, source in sources.items():
            if not set(encoders) & set(source.rows):
                continue
            if name not in config.corpora:
                raise InputError(f"corpora: {name} is missing: {', '.join(encoders)} is trained from its media")
            corpus = read_corpus(config.corpora[name])
            self.contents[name] = content(corpus)
            found = {sample.id: sample for sample in corpus.samples}
            if absent := [i for i in source.cache.ids if i not in found]:
                raise InputError(f"corpora.{name}: {len(absent)} samples of the cache are not in it, the first: {absent[0]}")
            self.samples[name] = [found[i] for i in source.cache.ids]
        self.frames = config.frames
        self.pool = ThreadPoolExecutor(config.workers, "decode")

    def rows(self, modality: str, names: Sequence[str], caches: Tensor, samples: Tensor, chance: Tensor) -> Rows:
        """Prepared inputs of a modality for b samples; `chance` (b,) chooses among captions. A cache of -1 is no sample."""
        nobody = Sample("")
        places = zip(caches.tolist(), samples.tolist(), strict=True)
        picked = [self.samples[names[c]][s] if c >= 0 else nobody for c, s in places]
        encoder = self.encoders[modality]
        if modality == "text":
            at = [i for i, sample in enumerate(picked) if sample.text]
            texts = [picked[i].text[int(float(chance[i]) * len(picked[i].text))] for i in at]
            parts, owner = ([encoder.prepare(texts)] if texts else []), torch.tensor(at, dtype=torch.int64)
        else:
            made = list(self.pool.map(lambda sample: prepare(sample, {modality: encoder}, self.frames, 300.0), picked))
            self.problems |= {(p["id"], modality): p for prepared in made for p in prepared.problems}
            parts = [m.inputs[modality] for m in made if modality in m.inputs]
            counts = torch.tensor([len(m.inputs[modality]) if modality in m.inputs else 0 for m in made])
            owner = torch.repeat_interleave(torch.arange(len(made)), counts)
        present = torch.bincount(owner, minlength=len(picked)) > 0
        if not parts:
            raise InputError(f"not one sample of a batch has {modality} that can be read, the first: {picked[0].id}")
        return Rows(encoder.collate(parts), owner, None if bool(present.all()) else present, len(picked))
