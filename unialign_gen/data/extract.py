"""Features of a corpus into a cache: decoding in threads, encoders in batches, a shard at a time, written by one more thread.

Which samples a shard holds and which batches the encoders see follow from the corpus and the settings alone, never from the
number of processes or from what came first. So a run that was killed goes on where it was, with as many processes as
there are now, and ends with the bytes of a run that was not.

Processes take part by the environment of `torchrun` and `accelerate launch` (RANK, WORLD_SIZE, LOCAL_RANK) and share
nothing but the folder: they never wait for each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..media.sound import LISTEN_SECONDS, WINDOWS
from ..notes import note
from . import cache
from .captions import sentence
from .corpus import Corpus, Sample
from .decode import Prepared, decoders, ordered, prepare
from .extract_config import ExtractConfig, describe, open_encoders, places
from .sources import read_corpus
from .storage import names_in, on_disk, write_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..encoders.base import Encoder

AHEAD = 3  # samples that wait for each decoding thread
# on a terminal the bar moves all the time; a log gets a line every half minute of what is done and how long the rest takes
LOG_PACE: dict[str, float] = {} if sys.stderr.isatty() else {"mininterval": 30, "delay": 30}


@dataclass
class Process:
    """Which of how many this one is, everywhere and on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> Process:
        return cls(
            *(int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        )

    def device(self, name: str) -> str:
        return f"{name}:{self.local}" if name == "cuda" and self.world > 1 else name


def run(config: ExtractConfig, process: Process | None = None, progress: bool = True) -> dict[str, Any]:
    """Makes this process's share of the cache that the configuration describes, or what of it is not there yet.

    Returns:
        a summary: samples, shards, missing files, problems by kind, and whether the cache is complete.

    Raises:
        InputError: the corpus or an encoder cannot be read, or the folder holds a cache made with other settings.
    """
    import torch

    process = process or Process.from_environment()
    corpus = read_corpus(config.corpus)
    parts = [corpus.samples[at : at + config.shard_size] for at in range(0, len(corpus.samples), config.shard_size)]
    for modality in config.encoders:
        if not any(s.text if modality == "text" else s.file(modality) for s in corpus.samples):
            captions = ": name a file of captions, or write `captions: labels`"
            advice = captions if modality == "text" and corpus.samples[0].label else ""
            raise InputError(f"encoders.{modality}: {corpus.lacks(modality)}{advice}")
    encoders = open_encoders(config)
    index = make_index(config, corpus, encoders)
    cache.create(config.out, index)
    cache.write_descriptions(config.out, places(config))
    there = names_in(config.out)
    todo: dict[int, list[Sample]] = {}
    for number in range(process.rank, len(parts), process.world):
        path = cache.shard_path(config.out, number)
        if path.name not in there:
            todo[number] = parts[number]
        elif cache.read_about(path)["ids"] != [s.id for s in parts[number]]:
            raise InputError(f"{path} holds other samples than this corpus has there: delete it and extract again")
    device = process.device(config.device)
    for encoder in encoders.values():
        encoder.to(device)
        if device.startswith("cpu"):  # convolutions are a third faster so
            encoder.to(memory_format=torch.channels_last)
    quiet = not progress or process.rank > 0
    made = shards(config, todo, encoders, device, quiet)
    with ThreadPoolExecutor(1, "write") as writer:
        for _ in ordered(writer, lambda one: cache.write_shard(config.out, *one), made, 2):  # one is written, one computed
            pass
    return finish(config, corpus, index)


def make_index(config: ExtractConfig, corpus: Corpus, encoders: dict[str, Encoder]) -> dict[str, Any]:
    """Everything that the features depend on. Sizes of batches are not in it: they change the last digits at most."""
    from .. import __version__

    described = {id(encoder): describe(encoder) for encoder in {id(e): e for e in encoders.values()}.values()}
    return {
        "format": cache.FORMAT,
        "version": __version__,
        "corpus": {
            "name": corpus.name,
            "samples": len(corpus.samples),
            "ids": corpus.digest(),
            "content": content(corpus),
        },
        "shards": -(-len(corpus.samples) // config.shard_size),
        "shard_size": config.shard_size,
        "frames": config.frames,
        "sound": {"seconds": LISTEN_SECONDS, "windows": WINDOWS},
        "dtype": config.dtype,
        "store": config.store,
        "encoders": {modality: described[id(encoder)] for modality, encoder in encoders.items()},
    }


def content(corpus: Corpus) -> str:
    """SHA-256 of what the samples say: captions, labels and the names of the files, wherever these lie."""
    total = hashlib.sha256()
    for s in corpus.samples:
        files = [os.path.basename(str(f)) if f else None for f in (s.audio, s.video, s.image, *s.extra.values())]
        total.update(json.dumps([s.id, s.text, s.label, files, list(s.extra)]).encode() + b"\n")
    return total.hexdigest()


def shards(
    config: ExtractConfig, parts: dict[int, list[Sample]], encoders: dict[str, Encoder], device: str, quiet: bool
) -> Iterator[tuple[int, cache.Shard]]:
    """The shards of these samples by number, one after the other; decoding goes on into the next while one is computed."""
    from tqdm import tqdm

    todo = [sample for part in parts.values() for sample in part]
    decode = partial(prepare, encoders=encoders, frames=config.frames, patience=config.patience)
    with (
        decoders(config.workers) as pool,
        tqdm(total=len(todo), desc="extracting", unit="sample", disable=quiet, smoothing=0.05, **LOG_PACE) as bar,
    ):
        results = ordered(pool, decode, todo, AHEAD * config.workers + 1)
        try:
            for number, part in parts.items():
                yield number, compute(config, encoders, part, results, device, lambda: bar.update())
        finally:
            results.close()  # type: ignore[attr-defined]


def compute(
    config: ExtractConfig,
    encoders: dict[str, Encoder],
    samples: Sequence[Sample],
    results: Iterator[Prepared],
    device: str,
    done: Callable[[], object],
) -> cache.Shard:
    """One shard. Takes the prepared samples, in their order, from `results`."""
    import torch

    stores = getattr(torch, config.store)
    batches = {m: Batches(t, config.batch(m), config.dtype, device) for m, t in encoders.items() if m != "text"}
    read: list[Prepared] = []
    features: dict[str, cache.Ragged] = {}
    if "text" in encoders:
        rows = of_texts(encoders["text"], samples, config.batch("text"), config.dtype, device)
        features["text"] = cache.Ragged(rows.to(stores), cache.counted(torch.tensor([len(s.text) for s in samples])))
        whole = features["text"].values.isfinite().all(1)
        if not bool(whole.all()):
            text = [text for sample in samples for text in sample.text][int((~whole).nonzero()[0, 0])]
            raise InputError(f"the text encoder's features of {text[:60]!r} are not finite: use dtype float32, store float32")
    for place, sample in enumerate(samples):
        prepared = next(results)
        for modality in sorted(sample.absent.keys() & encoders.keys()):
            prepared.blame(modality, "missing", sample.absent[modality])
        for modality, made in prepared.inputs.items():
            batches[modality].add(place, made)
        prepared.inputs = {}  # for memory's sake
        read.append(prepared)
        done()
    for modality, batch in batches.items():
        rows, counts, bad = batch.rows(len(samples), stores)
        for place in bad:
            read[place].blame(modality, "broken", "the encoder's features of it are not finite")
        features[modality] = cache.Ragged(rows, cache.counted(counts))
    problems = [problem for prepared in read for problem in prepared.problems]
    return cache.Shard([s.id for s in samples], [s.label for s in samples], features, problems)


class Batches:
    """Collects prepared inputs of one modality and runs the encoder whenever there are enough."""

    def __init__(self, encoder: Encoder, size: int, dtype: str, device: str):
        self.encoder, self.size, self.dtype, self.device = encoder, size, dtype, device
        self.waiting: list[Tensor] = []
        self.places: list[int] = []  # of the sample that each row belongs to
        self.outputs: list[Tensor] = []

    def add(self, place: int, made: Tensor) -> None:
        self.waiting.append(made)
        self.places += [place] * len(made)
        if sum(map(len, self.waiting)) >= self.size:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            for part in self.encoder.collate(self.waiting).split(self.size):
                self.outputs.append(forward(self.encoder, part, self.dtype, self.device))
            self.waiting = []

    def rows(self, samples: int, stores: torch.dtype) -> tuple[Tensor, Tensor, list[int]]:
        """Features (R, dim) as they are stored, how many each sample has (samples,), and the samples that lost theirs.

        A sample with a feature that is not finite loses all its rows.
        """
        import torch

        self.flush()
        values = torch.cat(self.outputs).float().cpu() if self.outputs else torch.zeros(0, self.encoder.dim)
        values = values.to(stores)
        places = torch.tensor(self.places, dtype=torch.int64)
        bad = places[~values.isfinite().all(1)].unique()
        good = ~torch.isin(places, bad)
        return values[good], torch.bincount(places[good], minlength=samples), bad.tolist()


def forward(encoder: Encoder, made: Tensor, dtype: str, device: str) -> Tensor:
    import torch

    with torch.inference_mode():
        kind = getattr(torch, dtype) if made.is_floating_point() else None
        made = made.to(device, kind, non_blocking=True)
        if made.ndim == 4 and device.startswith("cpu"):
            made = made.contiguous(memory_format=torch.channels_last)
        return encoder(made)


def of_texts(encoder: Encoder, samples: Sequence[Sample], batch: int, dtype: str, device: str) -> Tensor:
    """Features (R, dim) of all captions in order, fp32 on the processor; computed by length, so that little is padded."""
    import torch

    texts = [text for sample in samples for text in sample.text]
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    values = torch.zeros(len(texts), encoder.dim)
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        values[chosen] = forward(encoder, encoder.prepare([texts[i] for i in chosen]), dtype, device).float().cpu()
    return values


def finish(config: ExtractConfig, corpus: Corpus, index: dict[str, Any]) -> dict[str, Any]:
    """The summary; whichever process finds the last shard written also writes the report."""
    absent = cache.absent_shards(config.out, index)
    summary: dict[str, Any] = {
        "out": str(config.out),
        "complete": absent == 0,
        "corpus": corpus.name,
        "digest": index["corpus"]["ids"],
        "samples": len(corpus.samples),
        "missing": len(corpus.missing),
        "texts": sum(len(s.text) for s in corpus.samples) if "text" in config.encoders else 0,
        "label_sentences": sum(s.label is not None and s.text == (sentence(s.label),) for s in corpus.samples),
        "shards": index["shards"] - absent,
        "of_shards": index["shards"],
    }
    if absent:
        return summary
    rows: list[dict[str, str]] = [{"id": m.id, "kind": "missing", "reason": m.reason} for m in corpus.missing]
    again = []
    for number in range(index["shards"]):
        path = cache.shard_path(config.out, number)
        problems = cache.read_about(path)["problems"]
        again += [path.name] if any(row["kind"] == "broken" for row in problems) else []
        rows += problems
    if again:
        shards = f"{', '.join(again[:3])}{f' and {len(again) - 3} more' if len(again) > 3 else ''}"
        note("broken", f"what could not be read ({cache.REPORT}) is not tried again: once it is mended, delete {shards} first")
    write_rows(config.out / cache.REPORT, rows)
    if on_disk(config.out):
        for name in ("shard-*", cache.ENCODERS):
            for left in config.out.glob(f".{name}.*.part"):  # of processes that were killed
                left.unlink(missing_ok=True)
    kinds = Counter(row["kind"] for row in rows)
    return {**summary, "problems": {kind: kinds[kind] for kind in ("missing", "broken", "absent", "noted")}}
