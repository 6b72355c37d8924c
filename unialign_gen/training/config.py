"""What a training configuration says: one readable YAML, checked against these classes by `unialign_gen.config.load`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..config import Count, Flag, Options, Positive, Share, schema
from ..data.extract_config import cores
from ..data.sources import CorpusConfig
from ..data.storage import Location
from ..errors import InputError


@schema
class HeadConfig:
    """A trained head.

    Attributes:
        hidden: width of its two-layer path.
        dropout: on that path, and half of it on the features.
        noise: spread of Gaussian noise on the features, in units of each feature's own spread.
        rows: a sample with several rows (captions, frames) gives `one` at random, or the `mean` of their embeddings; of a
            trained encoder always one caption, and the mean of frames.
        init: `identity` starts with features as they are, where they are as wide as the space: for an encoder that is
            aligned already, such as CLIP's text or ImageBind's sound.
        start: a folder with a head to go on from, such as another run's `heads/text`; `hidden` and `init` are its own then.
    """

    hidden: Count = 768
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    rows: Literal["one", "mean"] = "one"
    init: Literal["random", "identity"] = "random"
    start: Path | None = None


@schema
class LoraConfig:
    """Updates of low rank to a frozen encoder's linear layers, in place of training all of its weights.

    Attributes:
        rank: of an update.
        alpha: an update is scaled by `alpha / rank`.
        dropout: on the update's input.
        layers: ends of the names of the layers; by default every linear layer of the encoder's repeated blocks.
    """

    rank: Count = 8
    alpha: Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layers: list[str] = field(default_factory=list)


@schema
class StreamConfig:
    """A kind of batch; a step draws one batch of every stream and adds their losses.

    Attributes:
        draw: caches that samples come from, with how much each counts.
        modalities: what the batch holds; the anchor is one of them.
        batch: samples, over all processes; no sample is twice in one.
        balance: how often a label is drawn grows with its number of samples to this power: 1 draws every sample equally
            often (in each epoch once, if there is a single cache and nothing is paired), 0 every label.
        pairs: for modalities that the samples lack, caches that give a sample of the same label, with how much each counts.
        label_share: the share of its label's mean in the anchor, for what names a kind of thing and not one picture.
        detach: modalities that take part and get no gradient.
        weight: of this stream's loss.
    """

    draw: dict[str, Positive]
    modalities: list[str]
    batch: Annotated[int, Field(ge=2)] = 512
    balance: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    pairs: dict[str, dict[str, Positive]] = field(default_factory=dict)
    label_share: Share = 0.0
    detach: list[str] = field(default_factory=list)
    weight: Positive = 1.0


@schema
class EvaluationConfig:
    """What is measured while training.

    Attributes:
        every: steps between two measurements; 0 measures at the end only.
        held_out: share of each cache's samples that is never drawn, chosen by a hash of the id.
        metric: what the kept heads are best in: a name that the log shows, such as `r1`, `label1` or `text/r1`.
        limit: at most so many samples.
    """

    every: Annotated[int, Field(ge=0)] = 500
    held_out: Annotated[float, Field(ge=0, le=0.9)] = 0.02
    metric: str = "r1"
    limit: Count = 2000


@schema
class TrainConfig:
    """A training run.

    Attributes:
        out: the run folder.
        caches: feature caches by name, folders that `unialign-gen extract` wrote, on the disk or in a store.
        heads: the modalities that are trained. The anchor is frozen unless it is among them.
        objective: `name` of the registry and its options.
        encoders: encoders that are trained too, by modality, named as for extraction.
        corpora: where the media of their caches are, by the cache's name.
        frames: of a video, for a trained encoder.
        workers: threads that decode for them.
        encoder_rate: their learning rate, as a share of `lr`.
        lora: encoders of which only updates of low rank are trained.
        activation_checkpointing: blocks of encoders compute again in the backward pass what they would keep in memory.
        compile: backend of `torch.compile` for blocks and heads, such as `inductor`; none by default.
        checkpoint: whose space it is: a frozen anchor goes through this checkpoint's own head.
        anchor_head: the folder of another head for it, for a space that is not part of a checkpoint yet.
        embed_dim: width of a space of one's own, where the anchor is trained too; the checkpoint's by default.
        anchor: the modality that the others are pulled towards.
        steps, epochs: how long; one of the two. An epoch is over the first stream's samples.
        lr, weight_decay, betas: AdamW.
        warmup, decay_fraction: shares of the steps in which the rate rises linearly, and in which it falls as a cosine.
        clip: largest norm of the gradient; 0 leaves it.
        precision: of heads and encoders; losses are in fp32 in any case.
        ema: decay of the moving average that is evaluated and kept; 0 keeps the weights themselves.
        micro_batch: rows a process that are encoded at a time, with the loss still over whole batches; 0 is all at once.
        save_every: steps between two states to resume from. sharded_state: each of several processes writes its
            share of them.
        trackers: of Accelerate, such as `tensorboard`, `wandb`; `metrics.jsonl` is written in any case.
    """

    out: Path
    caches: dict[str, Location]
    heads: dict[str, HeadConfig]
    streams: list[StreamConfig]
    objective: Options = field(default_factory=lambda: {"name": "unialign"})
    encoders: dict[str, str | Options] = field(default_factory=dict)
    corpora: dict[str, CorpusConfig] = field(default_factory=dict)
    frames: Count = 8
    workers: Count = field(default_factory=cores)
    encoder_rate: Positive = 1.0
    lora: dict[str, LoraConfig] = field(default_factory=dict)
    activation_checkpointing: Flag = False
    compile: str | None = None
    checkpoint: str = "starter"
    anchor_head: Path | None = None
    embed_dim: Count | None = None
    anchor: str = "image"
    steps: Count | None = None
    epochs: Positive | None = None
    lr: Positive = 2e-5
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.98)
    warmup: Share = 0.02
    decay_fraction: Share = 0.98
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    micro_batch: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    save_every: Count = 500
    sharded_state: Flag = False
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """What a schema cannot see.

        Raises:
            InputError: entries that contradict each other.
        """
        if (self.steps is None) == (self.epochs is None):
            raise InputError("give steps or epochs, one of the two")
        if not self.streams or not self.heads:
            raise InputError("a run needs at least one stream and one head")
        if self.embed_dim is not None and self.anchor not in self.heads:
            raise InputError(f"embed_dim: the anchor, {self.anchor}, is frozen, so the space is as wide as it is")
        if self.anchor_head is not None and self.anchor in self.heads:
            raise InputError(
                f"anchor_head: the anchor, {self.anchor}, is trained here; heads.{self.anchor}.start goes on from one"
            )
        if headless := sorted(set(self.encoders) - set(self.heads)):
            raise InputError(f"encoders.{headless[0]}: a trained encoder needs an entry in heads too")
        if stray := sorted(set(self.lora) - set(self.encoders)):
            raise InputError(f"lora.{stray[0]}: only an encoder that is trained, with an entry in encoders, has one")
        for name, head in self.heads.items():
            if name in self.encoders and head.noise:
                raise InputError(f"heads.{name}.noise: it is of features, and {name}'s encoder is trained from media")
        for i, stream in enumerate(self.streams):
            self._check_stream(f"streams[{i}]", stream)
        used = {m for stream in self.streams for m in stream.modalities}
        if unused := sorted(set(self.heads) - used):
            raise InputError(f"heads.{unused[0]}: no stream uses it; the streams have {', '.join(sorted(used))}")

    def _check_stream(self, where: str, stream: StreamConfig) -> None:
        used = {*stream.draw, *(c for paired in stream.pairs.values() for c in paired)}
        if unknown := sorted(used - set(self.caches)):
            raise InputError(f"{where}: no cache is called {', '.join(unknown)}: there are {', '.join(self.caches)}")
        if not all([stream.draw, *stream.pairs.values()]):
            raise InputError(f"{where}: draw, and every entry of pairs, needs a cache")
        if self.anchor not in stream.modalities or len(stream.modalities) < 2:
            raise InputError(f"{where}: modalities must hold the anchor, {self.anchor}, and at least one more")
        for entry, values in (("pairs", stream.pairs), ("detach", stream.detach)):
            if stray := sorted(set(values) - set(stream.modalities)):
                raise InputError(f"{where}.{entry}: {', '.join(stray)} is not among its modalities")
        if untrained := [m for m in stream.modalities if m != self.anchor and m not in self.heads]:
            raise InputError(f"{where}: {', '.join(untrained)} has no entry in heads")
        if not {m for m in stream.modalities if m in self.heads} - set(stream.detach):
            raise InputError(f"{where}.detach: nothing is left that learns: leave one modality with a head out of it")
        if stream.label_share and self.anchor in self.heads:
            raise InputError(f"{where}.label_share: it moves a frozen anchor, and {self.anchor} is trained here")
        if self.anchor in stream.pairs:
            raise InputError(f"{where}.pairs: the anchor, {self.anchor}, is what the samples are drawn by")
        if len(set(stream.modalities)) < len(stream.modalities):
            raise InputError(f"{where}: modalities names one twice: {', '.join(stream.modalities)}")
