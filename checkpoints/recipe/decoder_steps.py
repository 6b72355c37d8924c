"""The recipe's steps around the decoders: their training, and the last part of it that reads what they draw."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from unialign_gen.encoders import load_encoder
from unialign_gen.errors import InputError
from unialign_gen.heads import Head, load_head, save_head

from . import assemble, diffusion, distillation, image_space, kandinsky, manifest, quick_look, read_back, unclip
from .known import DECODER_TIERS, bank, neighbours, select, things
from .latent_steps import LATENT_CHANNELS, cached, perceptual
from .manifest import Row
from .training import processes
from .which import Which

UNET_CHANNELS, ATTENTION_FROM = (64, 128, 192), 2
READERS = ("image", "reader")  # the image space's encoder first


@dataclass
class Pictures:
    """What the decoders are trained on: rows, latents (N, C, h, w), sampling weights (N), and neighbours."""

    rows: list[Row]
    latents: Tensor
    weights: Tensor
    near: diffusion.Neighbours


def pictures(root: Path) -> Pictures:
    rows = select(root, "picture", DECODER_TIERS)
    return Pictures(rows, cached(root), manifest.weights_by_name(rows), neighbours(root, rows))


@dataclass
class Decoder:
    """A denoiser with what it takes, what it is given in training, and how it is written to a folder."""

    denoiser: diffusion.Conditioned
    conditions: diffusion.Conditions
    write: Callable[[Path], None]


def first_decoder(root: Path, known: Pictures, folder: Path, start: Path | None = None) -> Decoder:
    """Kandinsky's UNet as it lies in `folder`, or a new one; the UNet in `start` lends what fits."""
    if (folder / "unet").is_dir():
        unet = read_unet(folder / "unet")
    else:
        side = known.latents.shape[-1]
        unet = kandinsky.build(image_space.EMBED_DIM, LATENT_CHANNELS, side, UNET_CHANNELS, ATTENTION_FROM)
    lend(unet, start)
    grey = assemble.grey_embedding(root)
    return Decoder(
        diffusion.Conditioned(
            kandinsky.Denoiser(unet),
            kandinsky.takes(assemble.EMBED_NORM),
            functools.partial(kandinsky.nothing, grey, assemble.EMBED_NORM),
        ),
        kandinsky.conditions(known.near, grey, assemble.EMBED_NORM),
        lambda out: write_unet(unet, out / "unet"),
    )


def second_decoder(root: Path, known: Pictures, folder: Path, start: Path | None = None) -> Decoder:
    """Stable UnCLIP's UNet with its text encoder and tokenizer as they lie in `folder`, or new ones; `start` as above."""
    captions = [r.captions or [r.style] for r in known.rows]
    if (folder / "unet").is_dir():
        unet = read_unet(folder / "unet")
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        words = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    else:
        side = known.latents.shape[-1]
        unet = unclip.build(image_space.EMBED_DIM, LATENT_CHANNELS, side, UNET_CHANNELS, ATTENTION_FROM)
        words = unclip.tokenizer([c for cs in captions for c in cs])
        text_encoder = unclip.text_encoder(len(words))
    lend(unet, start)

    def write(out: Path) -> None:
        write_unet(unet, out / "unet")
        text_encoder.save_pretrained(out / "text_encoder")
        words.save_pretrained(out / "tokenizer")

    return Decoder(
        diffusion.Conditioned(
            unclip.Denoiser(unet, text_encoder),
            unclip.takes(words, assemble.EMBED_NORM),
            functools.partial(unclip.nothing, image_space.EMBED_DIM, words),
        ),
        unclip.conditions(known.near, captions, words, assemble.EMBED_NORM),
        write,
    )


MAKERS = {Which.kandinsky: first_decoder, Which.unclip: second_decoder}


def lend(unet: UNet2DConditionModel, start: Path | None) -> None:
    """Copies what fits from the UNet in `start`, if one is given.

    Raises:
        InputError: nothing does.
    """
    if start is not None and not diffusion.borrow(unet, read_unet(start)):
        raise InputError(f"{start}: none of its weights fits this decoder")


def trained(folder: Path) -> Path:
    """A decoder's folder, if it holds one.

    Raises:
        InputError: there is none yet.
    """
    if not (folder / "unet").is_dir():
        raise InputError(f"{folder} holds no decoder yet: train it, or take the starter's with `restore`")
    return folder


def read_unet(folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32)


def write_unet(unet: UNet2DConditionModel, folder: Path) -> None:
    unet.to(memory_format=torch.contiguous_format).save_pretrained(folder)


def train(root: Path, which: Which, samples: int, minutes: float, last: bool, start: Path | None) -> None:
    """Trains a decoder on tier A, from what is there; the UNet in `start` lends what fits before the first step.

    Raises:
        InputError: a later training has gone on from what is there.
    """
    refuse_behind(root, which, root / which.folder)
    known, folder = pictures(root), root / which.folder
    decoder = MAKERS[which](root, known, folder, start)
    diffusion.train(
        known.latents,
        known.weights,
        decoder.conditions,
        folder,
        model=decoder.denoiser.model,
        samples=samples,
        minutes=minutes,
        last=last,
        perceptual=perceptual(root, known.latents),
    )
    if processes()[0] == 0:
        decoder.write(folder)


def train_read_back(root: Path, which: Which, samples: int, minutes: float, last: bool) -> None:
    """Trains a decoder further, on its own drawings; what it was before stays where it was.

    Raises:
        InputError: there is none yet, or nobody to read them.
    """
    after = root / "read_back" / which.folder
    before = trained(furthest(root, which, after))
    known = pictures(root)
    decoder = MAKERS[which](root, known, before)
    shown = things(known.rows)
    prior = assemble.prior(known.near.embeds, shown)
    read_back.train(
        known.latents,
        known.weights,
        decoder.conditions,
        diffusion.prompts(known.near, decoder.denoiser.takes, lambda embeds, g: read_back.moved(embeds, prior, g)),
        bank(known.near.embeds, shown, least=3),
        reader(root),
        after,
        model=decoder.denoiser.model,
        samples=samples,
        minutes=minutes,
        last=last,
    )
    decoder.write(after)


def distill(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains the second decoder to follow the first as far as that one has come; what it was before stays where it was.

    Raises:
        InputError: there is one of them only, or none, or the second has gone on from here.
    """
    after = root / "distillation"
    leading, before = trained(furthest(root, Which.kandinsky)), trained(furthest(root, Which.unclip, after))
    refuse_behind(root, Which.unclip, after)
    known = pictures(root)
    decoder = second_decoder(root, known, before)
    distillation.train(
        known.latents,
        known.weights,
        decoder.conditions,
        known.near,
        first_decoder(root, known, leading).denoiser,
        decoder.denoiser,
        after,
        samples=samples,
        minutes=minutes,
        last=last,
    )
    decoder.write(after)


def stages(root: Path, which: Which) -> list[Path]:
    """The folders of a decoder's trainings, in their order; each goes on from the one before."""
    between = [root / "distillation"] if which is Which.unclip else []
    return [root / which.folder, *between, root / "read_back" / which.folder]


def furthest(root: Path, which: Which, before: Path | None = None) -> Path:
    """The folder of a decoder after its last training so far, or its last one ahead of the stage `before`."""
    known = stages(root, which)
    done = [folder for folder in known[: known.index(before) if before else None] if (folder / "unet").is_dir()]
    return done[-1] if done else known[0]


def refuse_behind(root: Path, which: Which, stage: Path) -> None:
    """A later stage would not see what this one is about to change.

    Raises:
        InputError: there is a later one already.
    """
    known = stages(root, which)
    for later in known[known.index(stage) + 1 :]:
        if (later / "unet").is_dir():
            raise InputError(f"{later} went on from {stage}: move it away first, or what is in it over {stage}")


def train_quick_look(root: Path, samples: int, minutes: float, last: bool) -> None:
    """Trains what stands in for movq and for the encoders at their own size while a decoder learns from its drawings."""
    start, folder = trained(furthest(root, Which.kandinsky)), root / "quick_look"
    known = pictures(root)
    missing = [kind for kind in READERS if not (folder / kind / "head.json").exists()]
    if missing:
        seen = manifest.pixels(root, known.rows)
        for kind in missing:
            encoder = load_encoder(root / "encoders" / kind)
            views = torch.stack([quick_look.small_features(encoder, seen, seed) for seed in range(2)])
            if kind == READERS[0]:
                head = load_head(root / "image_space")
            else:
                head = Head(views.shape[-1], image_space.EMBED_DIM, image_space.HIDDEN, dropout=0.5)
            save_head(quick_look.train_head(head, views, known.near.embeds), folder / kind)
    if not (folder / "views.safetensors").exists():
        decoder = first_decoder(root, known, start)
        movq = VQModel.from_pretrained(root / "autoencoder" / "movq").eval()
        prompts = diffusion.prompts(known.near, decoder.denoiser.takes)
        z, drawn = quick_look.views(known.latents, known.weights, prompts, decoder.denoiser.model.eval(), movq)
        save_file({"latents": z, "pictures": drawn}, folder / "views.safetensors")
    made = load_file(folder / "views.safetensors")
    model = quick_decoder(folder)
    quick_look.train_decoder(
        made["latents"], made["pictures"], folder, model=model, samples=samples, minutes=minutes, last=last
    )
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "decoder.safetensors")


def quick_decoder(folder: Path) -> quick_look.QuickDecoder:
    """The quick decoder as it lies in `folder`, or a new one."""
    torch.manual_seed(0)
    model = quick_look.QuickDecoder(LATENT_CHANNELS)
    if (folder / "decoder.safetensors").exists():
        model.load_state_dict(load_file(folder / "decoder.safetensors"))
    return model


def reader(root: Path) -> read_back.Reader:
    """The encoders behind movq, and behind the quick decoder that `train_quick_look` wrote.

    Raises:
        InputError: it did not.
    """
    folder = root / "quick_look"
    if not (folder / "decoder.safetensors").exists():
        raise InputError(f"{folder} holds no quick decoder yet: run `quick-look` first")
    return read_back.Reader(
        VQModel.from_pretrained(root / "autoencoder" / "movq"),
        quick_decoder(folder),
        load_head(root / "image_space"),
        [(load_encoder(root / "encoders" / kind), load_head(folder / kind)) for kind in READERS],
    )
