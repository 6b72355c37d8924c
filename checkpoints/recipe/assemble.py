"""Puts the trained parts together as the checkpoint that ships: fp16 safetensors, cards beside them."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from diffusers import UNet2DConditionModel, VQModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from unialign_gen.aligner import Aligner
from unialign_gen.concepts import ConceptTable, Understanding, lay_out
from unialign_gen.heads import Head, save_head
from unialign_gen.pipelines import EmbeddingPrior, Upscaler

from . import distil
from .decoders import Decoder, pipeline
from .drawable import keep_drawable
from .recognition import quantised
from .space import EMBED_DIM

STEPS, GUIDANCE = 12, 4.0
BEST_OF = 2  # noises that the distilled decoder's pictures are chosen from: its four steps leave time for that
CRISP = 0.5  # of the upscaler: all of it is crisper, and the judge names fewer pictures
KEPT = "README.md"  # cards are written by hand


def starter(
    root: Path,
    decoders: Path,
    heads: dict[str, Head],
    table: ConceptTable,
    prior: EmbeddingPrior,
    understanding: Understanding,
    out: Path,
) -> None:
    """Writes the whole starter to `out`, in place of the one that is there; its card is kept.

    Of `decoders` it takes `movq`, `kandinsky/unet`, and if they are there `kandinsky-distilled`, `stable-unclip`, `upscaler`.
    """
    part = out.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    for kind, head in heads.items():
        shutil.copytree(root / "encoders" / kind, part / "aligner" / kind)
        save_head(quantised(head), part / "aligner" / kind)
    Aligner(EMBED_DIM, list(heads)).save_config(part / "aligner")
    movq, upscaler = VQModel.from_pretrained(decoders / "movq"), decoders / "upscaler"
    guided = {"default_steps": STEPS, "default_guidance": GUIDANCE}
    distilled = {"default_steps": distil.STEPS, "default_guidance": 1.0, "distilled": True, "default_best_of": BEST_OF}
    shared = {
        "things_alone": True,
        "upscaler": Upscaler.from_pretrained(upscaler, strength=CRISP).half() if upscaler.is_dir() else None,
    }
    first, fast, second = (decoders / decoder.value for decoder in Decoder)
    aligner = Aligner.from_pretrained(part / "aligner")
    quick, how = (fast, distilled) if fast.is_dir() else (first, guided)  # both draw nearly the same
    artist = pipeline(Decoder.kandinsky, movq, EMBED_DIM, unet=UNet2DConditionModel.from_pretrained(quick / "unet"), **how)
    artist.set_progress_bar_config(disable=True)
    keep_drawable(prior, lambda z: artist(embeds=z, seed=list(range(len(z)))).images, partial(aligner.embed, "image"))
    own = {"aligner": aligner, "prior": prior.half()}
    unet = UNet2DConditionModel.from_pretrained(first / "unet").half()
    pipeline(Decoder.kandinsky, movq.half(), EMBED_DIM, unet=unet, **own, **guided, **shared).save_pretrained(part)
    if fast.is_dir():
        unet = UNet2DConditionModel.from_pretrained(fast / "unet").half()
        pipeline(Decoder.distilled, movq, EMBED_DIM, unet=unet, **distilled, **shared).save_pretrained(part / fast.name)
    if second.is_dir():
        made = pipeline(
            Decoder.stable_unclip,
            movq.float(),
            EMBED_DIM,
            tokenizer=PreTrainedTokenizerFast.from_pretrained(second / "tokenizer"),
            text_encoder=CLIPTextModel.from_pretrained(second / "text_encoder").half(),
            unet=UNet2DConditionModel.from_pretrained(second / "unet").half(),
            **guided,
            **shared,
        )
        made.vae.half()
        made.save_pretrained(part / second.name)
    for folder, name in itertools.product((fast, second), ("aligner", "movq", "vae", "upscaler")):  # those of the first decoder
        shutil.rmtree(part / folder.name / name, ignore_errors=True)
    replace(table, places=lay_out(table)).save(part)
    understanding.save(part)
    shutil.copy(root / "ATTRIBUTION.tsv", part)
    if (out / KEPT).exists():
        shutil.copy(out / KEPT, part)
    for file in part.rglob("*.json"):  # without where a model was loaded from, which diffusers and transformers note
        config = json.loads(file.read_text())
        if isinstance(config, dict) and {"_name_or_path", "name_or_path"} & set(config):
            config = {k: v for k, v in config.items() if k not in ("_name_or_path", "name_or_path")}
            file.write_text(json.dumps(config, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
