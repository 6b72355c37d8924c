"""What a generation protocol is of: which clips, prompts and methods, their embeddings, and the clips' own pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from tqdm import tqdm

from unialign_gen.data import vggsounder
from unialign_gen.data.cache import FeatureCache
from unialign_gen.data.corpus import Corpus
from unialign_gen.data.extract import Process
from unialign_gen.data.extract import run as extract_features
from unialign_gen.data.extract_config import ExtractConfig
from unialign_gen.data.sources import CorpusConfig, read_corpus
from unialign_gen.data.storage import in_memory
from unialign_gen.errors import InputError
from unialign_gen.heads import encoder_description, heads_in
from unialign_gen.loading import PUBLISHED, description, find, open_aligner
from unialign_gen.loading.methods import Method, head_folder, tell_borrowed
from unialign_gen.media import load_clip, load_image

from . import embeddings
from .pictures import Cell, file_name, open_folder, save

SELF = "self-reconstruction"
FRAMES = 8


@dataclass(frozen=True)
class Plan:
    """A generation protocol.

    Attributes:
        kinds: of prompts, modalities joined by `+`; `image` is the decoder's self-reconstruction, drawn once for all methods.
        seeds: how many draws; a method with as many training runs takes one for each draw.
        frame: which of a video's 8 frames, from 0, is the clip's own picture, where the corpus has no picture of it.
        steps, guidance: the decoder's own if None.
        batch: pictures drawn at a time.
        annotations: VGGSounder's list: a clip has then all classes that annotators heard and saw, not its label alone.
    """

    corpus: CorpusConfig
    checkpoint: str
    decoders: tuple[str | None, ...]
    methods: tuple[Method, ...]
    kinds: tuple[str, ...]
    out: Path
    seeds: int = 3
    frame: int = 4
    steps: int | None = None
    guidance: float | None = None
    batch: int = 16
    device: str = "cpu"
    dtype: Any = None
    sources: Mapping[str, str] = field(default_factory=dict)
    accept_license: bool = False
    annotations: Path | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            if len(method.runs) not in (1, self.seeds):
                raise InputError(
                    f"{method.name} has {len(method.runs)} training runs for {self.seeds} draws: give one, or one for each"
                )
            if method.name == SELF:
                raise InputError(f"a method cannot be called {SELF}: that is the row of the decoder's own")
        if not 0 <= self.frame < FRAMES:
            raise InputError(f"--frame {self.frame}: a video gives frames 0 to {FRAMES - 1}")

    @property
    def drawing(self) -> dict[str, Any]:
        """Options of a pipeline's call."""
        return {"num_inference_steps": self.steps, "guidance_scale": self.guidance}

    @property
    def own_sources(self) -> dict[str, str]:
        """Sources, less a sound encoder outside the checkpoint's space: only methods' heads use it."""
        given = dict(self.sources)
        if self.checkpoint in PUBLISHED and "audio_head" not in given:
            described = description.read(find(self.checkpoint))
            encoder = given.get("audio_encoder") or described["encoders"]["audio"]["encoder"]
            if encoder in description.OUTSIDE:
                given = {part: source for part, source in given.items() if part not in ("audio", "audio_encoder")}
        return given


def check_heads(plan: Plan) -> None:
    """An `InputError` where a method's head would be measured on features that it was not trained on, or lacks one for a sound
    encoder outside the checkpoint's space: it would mean nothing.
    """
    shared = [name for name in embeddings.needed(plan.kinds) if name in embeddings.MODALITIES]
    for method, run, name in ((m, run, name) for m in plan.methods for run in m.runs for name in shared):
        folder = head_folder(name, run)
        if folder is not None and (folder / "model.safetensors").is_file():
            raise InputError(
                f"{method.name} was trained with its {name} encoder, and all methods are drawn by the checkpoint's: write "
                f"unialign_gen.load({plan.checkpoint!r}, heads={str(run)!r}).save_pretrained(FOLDER), give --checkpoint FOLDER"
            )
    if "audio" not in embeddings.needed(plan.kinds) or plan.own_sources == dict(plan.sources):
        return
    for method, run in ((m, run) for m in plan.methods for run in m.runs):
        if run is None or (run.is_dir() and not (run / "audio" / "head.json").is_file()):
            raise InputError(
                f"{method.name} has no head for sound, and this encoder is in no decoder's space by itself: "
                "train one, or give it as --source audio_head=FOLDER"
            )


@dataclass
class Study:
    """A plan with its clips: those that have every modality that some prompt needs, and a picture of their own.

    Attributes:
        keep: which rows of the features they are (N,).
        embedded: (method, run number) -> unit embeddings (N, d) by kind.
        left_out: clips of the corpus that are not there or cannot be used, with the reason.
        cells: by decoder, what was drawn.
    """

    plan: Plan
    features: FeatureCache
    ids: list[str]
    labels: list[str | None]
    texts: list[str]
    keep: Tensor
    embedded: dict[tuple[str, int], dict[str, Tensor]]
    left_out: list[dict[str, str]]
    corpus: Corpus
    pipelines: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, list[Cell]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the ids, joined by newlines."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Of the set of clips."""
        return self.corpus.name if self.plan.annotations is None else f"{self.corpus.name}, heard and seen"

    @cached_property
    def classes(self) -> list[frozenset[str]]:
        """Of each clip the classes that a picture of it may show: its label, or all that annotators heard and saw."""
        known = {} if self.plan.annotations is None else vggsounder.heard_and_seen(self.plan.annotations)
        own = [frozenset({label} if label else ()) for label in self.labels]
        return [known.get(clip, mine) for clip, mine in zip(self.ids, own, strict=True)]

    @property
    def references(self) -> list[Path]:
        return [self.plan.out / "reference" / file_name(clip) for clip in self.ids]


def encoder_entries(plan: Plan, modalities: Sequence[str]) -> dict[str, str | dict[str, Any]]:
    """Where `extract` finds the encoders: the checkpoint's, and of modalities of one's own those that a method's run kept."""
    own = {name: own_encoder(plan, name) for name in modalities if name not in embeddings.MODALITIES}
    modalities = [name for name in modalities if name not in own]
    if plan.checkpoint not in PUBLISHED:
        return dict.fromkeys(modalities, plan.checkpoint) | own
    described = description.replace_sources(description.read(find(plan.checkpoint)), plan.sources, plan.accept_license)
    return {m: description.config_of(described["encoders"]["image" if m == "video" else m]) for m in modalities} | own


def own_encoder(plan: Plan, modality: str) -> str | dict[str, Any]:
    """The encoder of a modality of one's own, as the first run that has a head for it describes it; an `InputError` if none."""
    for run in (run for method in plan.methods for run in method.runs if run is not None and run.is_dir()):
        folder = heads_in(run).get(modality)
        if folder is not None and (folder / "model.safetensors").is_file():
            return str(folder)
        if folder is not None and (described := encoder_description(folder)):
            return str(described["folder"]) if "folder" in described else described
    raise InputError(f"--prompts: no method has an encoder and a head for {modality}")


def modalities_of(corpus: Corpus, kinds: Sequence[str]) -> list[str]:
    """What the encoders have to look at: what the prompts need, and the picture, or the video it is taken from."""
    wanted = embeddings.needed([*kinds, "image"])
    if any(s.image is None and s.video is not None for s in corpus.samples) and "video" not in wanted:
        wanted.append("video")
    if not any(s.image for s in corpus.samples):
        wanted.remove("image")
    return wanted


def prepare(plan: Plan, process: Process) -> Study:
    """Features, embeddings and reference pictures of the clips.

    Raises:
        InputError: the corpus, an encoder or a method's heads cannot be had, or no clip has all that the prompts need.
    """
    check_heads(plan)
    corpus = read_corpus(plan.corpus)
    wanted = modalities_of(corpus, plan.kinds)
    for name in wanted:
        if name != "text" and not any(s.file(name) for s in corpus.samples):
            raise InputError(f"{corpus.lacks(name)}: leave prompts with {name} out")
    dtype: Any = str(plan.dtype or torch.float32).removeprefix("torch.")
    settings = {"frames": FRAMES, "dtype": dtype, "device": plan.device, "shard_size": 64}
    extract_features(ExtractConfig(plan.corpus, encoder_entries(plan, wanted), plan.out / "features", **settings), process)
    barrier(process)
    features = FeatureCache.open(plan.out / "features")
    aligner = open_aligner(plan.checkpoint, plan.own_sources, plan.accept_license)
    tell_borrowed(plan.methods, embeddings.needed([k for k in plan.kinds if k != "image"]), aligner)
    runs = [((m.name, i), run) for m in plan.methods for i, run in enumerate(m.runs)]
    mixed = [k for k in plan.kinds if k != "image"]
    found = {key: embeddings.embed(features, mixed, run, aligner, plan.frame) for key, run in runs if mixed}
    found[SELF, 0] = embeddings.embed(features, ["image"], None, aligner, plan.frame)
    has = torch.stack([there for _, there in found.values()]).all(0)
    keep = has.nonzero()[:, 0]
    if len(keep) < 2:
        raise InputError(f"{len(keep)} clips of {corpus.name} have all of {', '.join(plan.kinds)}: nothing to measure")
    reasons = {p["id"]: p["reason"] for p in features.problems() if p["kind"] != "noted"}
    lacking = [clip for clip, there in zip(features.ids, has.tolist(), strict=True) if not there]
    left_out = [{"id": m.id, "reason": m.reason} for m in corpus.missing]
    left_out += [{"id": clip, "reason": reasons.get(clip, "lacks a modality that a prompt needs")} for clip in lacking]
    study = Study(
        plan,
        features,
        [features.ids[i] for i in keep.tolist()],
        [features.labels[i] for i in keep.tolist()],
        [next(iter(corpus.samples[i].text), "") for i in keep.tolist()],
        keep,
        {key: {kind: z[keep] for kind, z in kinds.items()} for key, (kinds, _) in found.items()},
        left_out,
        corpus,
    )
    make_references(study, process)
    return study


def make_references(study: Study, process: Process) -> None:
    """Writes the clips' own pictures, as they are: the corpus' picture, or the frame that the plan names."""
    folder = study.plan.out / "reference"
    open_folder(folder, {"frame": study.plan.frame, "frames": FRAMES, "corpus": study.corpus.digest()})
    rows = study.keep.tolist()
    todo = list(zip(rows, study.references, strict=True))[process.rank :: process.world]
    for at, path in tqdm(todo, desc="the clips' own pictures", disable=None if process.rank == 0 else True):
        if path.is_file():
            continue
        sample = study.corpus.samples[at]
        if sample.image:
            picture = load_image(sample.image)
        else:
            assert sample.video
            picture = load_clip(in_memory(sample.video), FRAMES).frames[study.plan.frame]
        save(picture, path)


def barrier(process: Process) -> None:
    """Waits until every process has come here, in a group that the first call begins; does nothing where there is one."""
    if process.world < 2:
        return
    if not distributed.is_initialized():  # nothing but this is exchanged, and the slowest may need days
        distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.barrier()


def destroy_process_group() -> None:
    """Ends the group that `barrier` began."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
