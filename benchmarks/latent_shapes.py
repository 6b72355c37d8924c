"""How many latent channels the starter's decoder should have: 4, 8 and 16, the same training time for each.

    python -m unialign_gen.checkpoints.recipe data && python -m unialign_gen.checkpoints.recipe encoders
    python benchmarks/latent_shapes.py

Every shape starts from the shipped movq and UNet with the layers that touch the latents drawn anew (for eight channels
too), trains both for the same number of minutes on the training pictures of the concept table, and is scored on held-out
pictures: reconstructed, and generated from their own image embeddings. The processor's time counts, on one thread by
default, so that other work on the machine disturbs little. The trunk that all start from has seen eight channels, which
favours eight somewhat.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel, VQModel
from PIL import Image
from torch import Tensor, nn

from unialign_gen.checkpoint import shipped_folder
from unialign_gen.checkpoints.recipe import (
    assemble,
    autoencoder,
    decoder_steps,
    diffusion,
    kandinsky,
    known,
    latent_steps,
    manifest,
)
from unialign_gen.data.manifest import Row, default_root
from unialign_gen.encoders import load_encoder
from unialign_gen.errors import InputError
from unialign_gen.eval.concepts import score
from unialign_gen.eval.data import SPLITS, Prompt
from unialign_gen.eval.judge import Judge

TOUCHING = ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in", "quantize", "conv_in", "conv_out")


def transplant(into: nn.Module, old: nn.Module, anew: tuple[str, ...]) -> None:
    """Copies all parameters but those under the names `anew`."""
    state = {k: v.float() for k, v in old.state_dict().items() if not k.startswith(tuple(f"{name}." for name in anew))}
    missing, unexpected = into.load_state_dict(state, strict=False)
    wrong = [*unexpected, *(k for k in missing if not k.startswith(anew))]
    if wrong:
        raise ValueError(f"the shipped weights do not fit at {wrong}")


def uint8(pictures: Tensor) -> list[Image.Image]:
    """Pictures (N, 3, h, w) in [-1, 1] as the pipeline rounds them."""
    levels = ((pictures / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [Image.fromarray(p.numpy()) for p in levels]


@torch.no_grad()
def judged(judge: Judge, got: list[Image.Image], real: list[Image.Image], wanted: list[Prompt]) -> dict[str, float]:
    """Top-1, top-5, and the mean cosine of the judge's features of a picture and of the real one."""
    a, b = (judge.encoder(judge.encoder.prepare(pictures)) for pictures in (got, real))
    shares = score(judge, got, wanted)
    return {"top1": shares["top1"], "top5": shares["top5"], "cosine": F.cosine_similarity(a, b).mean().item()}


def compare(
    root: Path, channels: int, work: Path, minutes: tuple[float, float], test: list[Row], guidance: float
) -> dict[str, Any]:
    """Trains one shape and scores it."""
    torch.manual_seed(0)
    starter = shipped_folder() / "starter"
    rows = [r for r in known.select(root, "picture", known.DECODER_TIERS) if r.concepts]
    pictures, unseen = manifest.pixels(root, rows), manifest.pixels(root, test)
    movq = autoencoder.build(latent_steps.AUTOENCODER, channels)
    transplant(movq, VQModel.from_pretrained(starter / "movq"), TOUCHING[:5])
    early = autoencoder.EncoderFeatures(load_encoder(root / "encoders" / "image").net, stages=3)
    fit, draw = minutes
    movq = autoencoder.train(
        pictures, early, work / "movq", model=movq, samples=10**9, minutes=fit, last=True, timer=time.process_time
    ).requires_grad_(False)
    latents = autoencoder.encode(movq, pictures)
    unet = kandinsky.build(
        assemble.EMBED_DIM, channels, latents.shape[-1], decoder_steps.UNET_CHANNELS, decoder_steps.ATTENTION_FROM
    )
    transplant(unet, UNet2DConditionModel.from_pretrained(starter / "unet"), TOUCHING[5:])
    grey = assemble.grey_embedding(root)
    diffusion.train(
        latents,
        manifest.weights_by_name(rows),
        kandinsky.conditions(known.neighbours(root, rows), grey, assemble.EMBED_NORM),
        work / "unet",
        model=kandinsky.Denoiser(unet),
        samples=10**9,
        minutes=draw,
        last=True,
        timer=time.process_time,
        lr=4e-4,
    )
    scheduler = diffusion.scheduler()
    scheduler.set_timesteps(20)
    z = known.anchors(root, test) * assemble.EMBED_NORM
    g = torch.Generator().manual_seed(0)
    x = torch.randn(len(test), channels, *latents.shape[2:], generator=g)
    with torch.no_grad():
        for t in scheduler.timesteps:
            pair = unet(
                torch.cat([x, x]),
                t,
                None,
                added_cond_kwargs={"image_embeds": torch.cat([grey.expand_as(z) * assemble.EMBED_NORM, z])},
            ).sample[:, :channels]
            plain, guided = pair.chunk(2)
            x = scheduler.step(plain + guidance * (guided - plain), t, x).prev_sample
        generated = torch.cat([movq.decode(part, force_not_quantize=True).sample for part in x.split(16)])
        again = torch.cat(
            [movq.decode(part.float(), force_not_quantize=True).sample for part in autoencoder.encode(movq, unseen).split(16)]
        )
    real = [Image.fromarray(p.numpy()) for p in unseen]
    wanted = [Prompt("image", r.path, r.concepts) for r in test]
    judge = Judge.from_folder()
    error = (again.clamp(-1, 1) - autoencoder.pixels_of(unseen)).square().mean((1, 2, 3)) / 4
    return {
        "reconstructed": judged(judge, uint8(again), real, wanted) | {"psnr_db": (-10 * error.log10()).mean().item()},
        "generated": judged(judge, uint8(generated), real, wanted),
        "judge_on_real": score(judge, real, wanted)["top1"],
        "crops": last(work / "movq"),
        "samples": last(work / "unet"),
    }


def last(folder: Path) -> int:
    """How many samples a run got through."""
    return torch.load(folder / "state.pt", weights_only=True)["done"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=default_root(), help="the recipe's data folder")
    parser.add_argument("--channels", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--autoencoder-minutes", type=float, default=4)
    parser.add_argument("--decoder-minutes", type=float, default=6)
    parser.add_argument("--limit", type=int, default=160, help="held-out pictures")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    test = [r for r in manifest.read(args.root) if r.kind == "picture" and r.split == SPLITS["held_out"] and r.concepts]
    test = sorted(test, key=lambda r: r.id)[:: max(1, len(test) // args.limit)][: args.limit]
    if not test:
        raise InputError(f"no held-out pictures in {args.root}: run the recipe's `data` first")
    out: dict[str, Any] = {"n": len(test), "minutes": [args.autoencoder_minutes, args.decoder_minutes]}
    for channels in args.channels:
        with tempfile.TemporaryDirectory() as work, redirect_stdout(sys.stderr):
            out[f"16 x 16 x {channels}"] = compare(
                args.root,
                channels,
                Path(work),
                (args.autoencoder_minutes, args.decoder_minutes),
                test,
                args.guidance,
            )
    sys.stdout.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
