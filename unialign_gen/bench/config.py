"""What a bench configuration says; checked by `unialign_gen.config.load`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..config import Count, Options, Share, schema
from ..errors import InputError
from .synthetic import Synthetic

RATE = "lr"  # the one searched option that is the trainer's and not the objective's


@schema
class Pictures:
    """What is drawn of a data set whose checkpoint has a decoder.

    Attributes:
        prompts: test samples that are drawn, each with another label as far as there are so many.
        steps: of the decoder.
    """

    prompts: Count = 32
    steps: Count = 6


@schema
class Dataset:
    """A feature cache, split by a hash of the ids, or one that is made from known factors.

    Attributes:
        synthetic: made from known factors.
        cache: a folder that `unialign-gen extract` wrote.
        pairs: for a modality that `cache` lacks, caches whose samples of the same label stand for it.
        checkpoint: whose space the anchor stays in, frozen, and whose decoder draws; without one the anchor is trained too.
        settings: of an earlier data set, whose settings are used here; without it they are searched on this one's validation
            split.
        objectives: some of the bench's; all by default.
        sizes: numbers of training samples; all by default. Settings are searched with all.
        pictures: what is drawn.
    """

    synthetic: Synthetic | None = None
    cache: Path | None = None
    pairs: dict[str, list[Path]] = field(default_factory=dict)
    checkpoint: str | None = None
    settings: str | None = None
    objectives: list[str] | None = None
    sizes: list[Annotated[int, Field(ge=2)]] = field(default_factory=list)
    pictures: Pictures | None = None

    def __post_init__(self) -> None:
        if (self.synthetic is None) == (self.cache is None):
            raise InputError("a data set has either synthetic or cache")
        if self.pictures is not None and self.checkpoint is None:
            raise InputError("pictures need a checkpoint, whose decoder draws them")


@schema
class Contestant:
    """An objective and what is searched.

    Attributes:
        objective: `name` of the registry and its options.
        search: option -> its values, of which the first is the start; `lr` is the trainer's, all others the objective's. One
            option after the other takes its best value on the validation split, with those before it at theirs.
    """

    objective: Options
    search: dict[str, list[Any]]

    @property
    def trials(self) -> int:
        return 1 + sum(len(values) - 1 for values in self.search.values())


@schema
class BenchConfig:
    """A bench: every objective on every data set.

    Attributes:
        out: the folder; an interrupted bench goes on from there.
        seeds: trainings with the chosen settings, by which figures are averaged.
        anchor: of the objectives that have one, and where conflicts are measured.
        query: what looks for the other modalities, each alone and all together.
        reference: the objective that every other is compared with, sample by sample.
        steps, batch, hidden, dropout, weight_decay: of every training.
        embed_dim: width of the space, where the anchor is trained.
        missing: shares of the modalities that are taken away from the test samples.
        gaps: distances that the modalities are moved apart by, after training, to see what a gap by itself does.
    """

    out: Path
    datasets: dict[str, Dataset]
    objectives: dict[str, Contestant]
    reference: str
    seeds: Count = 3
    anchor: str = "image"
    query: str = "text"
    steps: Count = 150
    batch: Annotated[int, Field(ge=2)] = 256
    hidden: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    embed_dim: Count = 32
    missing: list[Share] = field(default_factory=list)
    gaps: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.reference not in self.objectives:
            raise InputError(f"reference: there is no objective {self.reference}, but {', '.join(self.objectives)}")
        trials = {name: entry.trials for name, entry in self.objectives.items()}
        if len(set(trials.values())) > 1:
            raise InputError(f"objectives: the search is to be as long for each, but trials are {trials}")
        seen: list[str] = []
        for name, dataset in self.datasets.items():
            if unknown := sorted(set(dataset.objectives or ()) - set(self.objectives)):
                raise InputError(f"datasets.{name}.objectives: there is no objective {unknown[0]}")
            if dataset.settings is not None and dataset.settings not in seen:
                raise InputError(f"datasets.{name}.settings: {dataset.settings} is no data set with a search before this one")
            if dataset.settings is None:
                seen.append(name)
            elif unsearched := sorted(set(self.chosen(name)) - set(self.chosen(dataset.settings))):
                raise InputError(f"datasets.{name}: {dataset.settings} has no settings for {unsearched[0]}")

    def result_path(self, dataset: str, objective: str) -> Path:
        """Where an objective's results on a data set are kept."""
        return self.out / "results" / dataset / f"{objective}.json"

    def chosen(self, dataset: str) -> list[str]:
        """The names of a data set's objectives."""
        return self.datasets[dataset].objectives or list(self.objectives)
