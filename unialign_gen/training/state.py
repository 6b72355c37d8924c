"""What a run is made of, from its configuration: features, the frozen anchor, heads, encoders, objective."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data.cache import FeatureCache, read_descriptions
from ..data.extract_config import check_encoder, digest, locate, open_encoder
from ..encoders.base import Encoder
from ..errors import InputError, as_input_error
from ..heads import Head, load_head
from ..loading import frozen_head
from ..objectives import Objective, build
from ..objectives.registry import find
from .batches import Batches
from .config import TrainConfig
from .features import Moments, Source, content, frozen_points, is_constant, label_means, moments, read, tell_constant
from .model import Heads
from .parallel import add_lora
from .raw_inputs import RawInputs
from .seeds import derived
from .streams import Stream


@dataclass
class TrainState:
    """What a run is made of, before its first step.

    Attributes:
        points: unit embeddings (N, d) of a frozen anchor by cache.
        means: unit means (d,) of the labels.
        descriptions: where each modality's encoder is, as `cache.read_descriptions` has it.
        inputs: digests of what the run reads at every step, by the entry of its configuration.
    """

    sources: dict[str, Source]
    points: dict[str, Tensor]
    means: dict[str, Tensor]
    batches: list[Batches]
    heads: Heads
    objective: nn.Module
    raw_inputs: RawInputs | None
    steps: int
    descriptions: dict[str, dict[str, Any]]
    inputs: dict[str, str]


def prepare(config: TrainConfig) -> TrainState:
    """Reads the caches, embeds the frozen anchor, builds heads and objective.

    Raises:
        InputError: caches or a head that do not fit the configuration.
    """
    torch.manual_seed(config.seed)
    wanted = {m for stream in config.streams for m in stream.modalities}
    sources = {
        name: read(name, FeatureCache.open(folder), wanted, config.evaluation.held_out, config.seed)
        for name, folder in config.caches.items()
    }
    known = sorted({modality for source in sources.values() for modality in source.cache.modalities})
    points: dict[str, Tensor] = {}
    inputs = {f"caches.{name}": content(source, config.out) for name, source in sources.items()}
    if config.anchor not in config.heads:
        head = load_head(config.anchor_head) if config.anchor_head else frozen_head(config.checkpoint, config.anchor)[0]
        inputs["anchor_head" if config.anchor_head else "checkpoint"] = digest(head)
        for name, source in sources.items():
            if config.anchor in source.rows:
                if config.anchor_head:
                    check_encoder(source.cache, config.anchor, config.anchor_head)
                check_width(source, config.anchor, head)
                points[name] = frozen_points(source, config.anchor, head, config.out)
        if not points:
            raise InputError(
                f"no cache has {config.anchor}, the anchor, but {', '.join(known)}: extract it, or name another anchor"
            )
        tell_constant({name: is_constant(z) for name, z in points.items()}, config.anchor)
        dim = next(iter(points.values())).shape[1]
    else:
        dim = config.embed_dim or frozen_head(config.checkpoint, "image")[1]
    means = label_means(sources, points)
    encoders = {modality: trained_encoder(config, modality, sources) for modality in sorted(config.encoders)}
    raw_inputs = RawInputs(config, encoders, sources) if encoders else None
    if raw_inputs is not None:
        inputs |= {f"corpora.{name}": value for name, value in raw_inputs.contents.items()}
    spread, heads = {}, {}
    for modality in sorted(config.heads):
        having = [source for source in sources.values() if modality in source.rows]
        if not having:
            raise InputError(f"heads.{modality}: no cache has {modality}, but {', '.join(known)}")
        found = moments(having, modality, config.out)
        spread[modality] = found.std.float()
        if (start := config.heads[modality].start) and modality not in config.encoders:
            for source in having:
                check_encoder(source.cache, modality, start)
        heads[modality] = new_head(config, modality, found, dim)
    streams = [
        Stream(f"streams[{i}]", stream, sources, config.anchor, derived(config.seed, i))
        for i, stream in enumerate(config.streams)
    ]
    objective = objective_of(config)
    batches = [Batches(config, stream, sources, points, means, spread, raw_inputs) for stream in streams]
    steps = config.steps or math.ceil((config.epochs or 0) * len(streams[0]) / config.streams[0].batch)
    descriptions = {modality: entry for modality, entry in config.encoders.items() if isinstance(entry, dict)}
    for name in sorted(config.caches):
        descriptions = read_descriptions(sources[name].cache.folder) | descriptions
    trained = Heads(heads, encoders)
    return TrainState(sources, points, means, batches, trained, objective, raw_inputs, max(1, steps), descriptions, inputs)


def check_width(source: Source, anchor: str, head: nn.Module) -> None:
    """Refuses a cache whose anchor is not what the checkpoint's head takes."""
    wanted = head.config["features"] if isinstance(head, Head) else source.width(anchor)
    if source.width(anchor) != wanted:
        raise InputError(
            f"cache {source.name}: {anchor} has {source.width(anchor)} features, this checkpoint's head takes {wanted}: "
            "extract with the checkpoint's own encoder"
        )


def trained_encoder(config: TrainConfig, modality: str, sources: dict[str, Source]) -> Encoder:
    """An encoder whose weights are to be trained.

    Raises:
        InputError: it cannot be had, or its features are not those of the caches.
    """
    encoder = open_encoder(locate(modality, config.encoders[modality]), torch.float32).requires_grad_(True)
    if modality in config.lora:
        add_lora(encoder, config.lora[modality], f"lora.{modality}")
    for source in sources.values():
        if modality in source.rows and source.width(modality) != encoder.dim:
            raise InputError(
                f"encoders.{modality}: it gives {encoder.dim} features, cache {source.name} has {source.width(modality)}"
            )
    return encoder.train()


def new_head(config: TrainConfig, modality: str, features: Moments, dim: int) -> Head:
    """A head for features of these moments, or the one to go on from."""
    entry, width = config.heads[modality], len(features.mean)
    if entry.start is None:
        head = Head(width, dim, entry.hidden, entry.dropout)
        head.mean.copy_(features.mean)
        head.std.copy_(features.std.clamp(min=1e-4))
        if entry.init == "identity":
            said = f"heads.{modality}.init: {{error}}: leave init out, or use an encoder of that width"
            with as_input_error(said, ValueError):
                head.start_as_identity()
        return head
    kept = load_head(entry.start)
    if (kept.config["features"], kept.config["embed_dim"]) != (width, dim):
        raise InputError(
            f"heads.{modality}.start: {entry.start} takes {kept.config['features']} features to {kept.config['embed_dim']} "
            f"dimensions, this run needs {width} to {dim}"
        )
    head = Head(**kept.config, dropout=entry.dropout)
    head.load_state_dict(kept.state_dict())
    return head


def objective_of(config: TrainConfig) -> nn.Module:
    """The objective, with the run's anchor where it has one, checked against every stream's modalities.

    Raises:
        InputError: no such objective, a bad option, or a stream whose modalities it cannot use.
    """
    options = dict(config.objective)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError("objective: name is missing, such as unialign or infonce")
    try:
        if "anchor" in inspect.signature(find(name)).parameters:
            options.setdefault("anchor", config.anchor)
        objective = build(name, **options)
        if isinstance(objective, Objective):
            for stream in config.streams:
                objective.check_modalities(stream.modalities)
    except (InputError, ValueError) as error:
        raise InputError(f"objective: {error}") from error
    return objective
