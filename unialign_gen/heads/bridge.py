"""Sound heads in closed form, for a decoder that nobody trained one for.

    events  a tagger's probabilities weigh its classes' names in the decoder's space (ConSE, Norouzi et al. 2014)
    text    captions in a space of sound and text, and the same in the decoder's: a linear map between them carries sound
            across (as C-MCR does with a trained one, Wang et al. 2023)
    pairs   a linear map from sounds to the pictures that go with them

Both maps are ridge regressions. Whatever the way, the result is a head as training writes it, and a start for training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..diagnostics import wilson
from ..encoders import load_encoder, yamnet
from ..encoders.base import Encoder
from ..encoders.published import shipped
from ..encoders.registry import NOWHERE
from ..errors import InputError, as_input_error
from ..media import load_sound
from ..notes import note
from .head import Head, save_head
from .recognition import Recognition

FILE, SHIFT = "bridge.json", "shift.safetensors"
CAPTIONS = 3000
OPEN = 4.0  # the gate's bias: open, and still trainable
DECAYS = torch.logspace(-3, 2, 16, dtype=torch.float64).tolist()


@dataclass(frozen=True)
class Bridge:
    """What is known of such a head beside its weights.

    Attributes:
        way: `events`, `text` or `pairs`.
        mean: what the head gives for a sound that says nothing, of any norm (d,).
        spread: root mean square distance from it to what the head was made to give.
        limit: the uncertainty that one in twenty prompts it was made from exceeds, each left out; None for events.
        names: the tagger's classes.
        report: how it was made, and what `recall` found.
    """

    way: str
    mean: list[float]
    spread: float
    limit: float | None = None
    names: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    def uncertainty(self, raw: Tensor) -> Tensor:
        """How near a head's raw output (B, d) is to what it gives for nothing: (B,), 0 sure to 1 not at all.

        A regression shrinks what it does not know towards the mean, and so does an average of names that disagree.

        >>> Bridge("pairs", [1.0, 0.0], 2.0).uncertainty(torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, -4.0]]))
        tensor([1.0000, 0.5000, 0.0000])
        """
        distance = (raw - torch.tensor(self.mean, device=raw.device)).norm(dim=1)
        return 1 - (distance / self.spread).clamp(max=1)

    def tell(self, head: nn.Module, features: Tensor, raw: Tensor) -> None:
        """Notes of each sound's events, and of sounds that are unlike all that the head was made from."""
        for row, unsure in zip(features, self.uncertainty(raw.float()).tolist(), strict=True):
            if self.names:
                assert isinstance(head, Head)
                recognition: Any = head.recognitions[0]
                likeliest = recognition.probabilities(row[None])[0].topk(min(3, len(self.names)))
                heard = "; ".join(f"{self.names[i]} {p:.2f}" for p, i in zip(*likeliest, strict=True))
                note("no sound head", f"no sound head was trained for this decoder: drawn is what is heard by name, {heard} "
                     f"(uncertainty {unsure:.2f})")  # fmt: skip
            elif self.limit is not None and unsure > self.limit:
                note("unlike", f"the sound is unlike what its head was made from ({self.way}): uncertainty {unsure:.2f}, "
                     f"of those 19 in 20 are below {self.limit:.2f}")  # fmt: skip

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_bridge(folder: Path) -> Bridge | None:
    """What lies beside a head, None beside one that was trained; an `InputError` if it is damaged."""
    if not (folder / FILE).is_file():
        return None
    with as_input_error(
        f"{folder / FILE} is damaged: {{error}}; run `unialign-gen bridge` again", OSError, ValueError, TypeError
    ):
        return Bridge(**json.loads((folder / FILE).read_text("utf-8")))


@torch.no_grad()
def from_events(classify: nn.Linear, names: Sequence[str], points: Tensor, shift: Tensor | None) -> tuple[Head, Bridge]:
    """A head from a tagger: the sum over classes of probability times the name's embedding, moved to where pictures lie.

        z(f) = shift + sum_c p_c(f) t_c,    p(f) = sigmoid(classify(f)) over its sum

    >>> head, bridge = from_events(nn.Linear(8, 3), ["dog", "cat", "rain"], torch.eye(3, 4), None)
    >>> head(torch.randn(2, 8)).shape
    torch.Size([2, 4])

    Args:
        classify: the tagger's last layer, of features (B, f) to logits of events that need not exclude each other.
        names: of its classes.
        points: unit text embeddings (classes, d) of the names.
        shift: mean unit image embedding less mean unit text embedding (d,), where it was measured.
    """
    classes, width = classify.weight.shape
    head = Head(width, points.shape[1], 0, recognises=[{"width": width, "classes": classes, "exclusive": False}])
    # the linear path, which is brought to norm 1, is the shift, and so the points are in units of its length
    toward = points.mean(0) * 1e-3 if shift is None else shift
    scale = toward.norm()
    head.linear.weight.zero_()
    head.linear.bias.copy_(toward)
    recognition = head.recognitions[0]
    assert isinstance(recognition, Recognition)
    recognition.classify.load_state_dict(classify.state_dict())
    recognition.gate.weight.zero_()
    recognition.gate.bias.fill_(OPEN)
    recognition.points.copy_(points / scale / torch.tensor(OPEN).sigmoid())
    ends = (points + toward) / scale  # what one event alone would give
    mean = ends.mean(0)
    bridge = Bridge("events", mean.tolist(), float((ends - mean).square().sum(1).mean().sqrt()), names=list(names))
    return head.eval(), bridge


@dataclass(frozen=True)
class Ridge:
    """A linear map, and what it is without each of its own rows.

    Attributes:
        head: the map, from plain features.
        bridge: its mean, spread and limit.
        left_out: what the map from all other rows gives for each row (N, d).
        decay: of the weights, in units of the mean squared singular value of the features.
    """

    head: Head
    bridge: Bridge
    left_out: Tensor
    decay: float


@torch.no_grad()
def ridge(way: str, features: Tensor, targets: Tensor) -> Ridge:
    """Ridge regression (Hoerl & Kennard 1970) from standardised features (N, f) to targets (N, d), as a head.

    The decay is the one whose left-out rows are nearest to their targets (Allen 1974). Leaving out costs nothing: without row i
    the residual is (y_i - z_i) / (1 - h_i), h the diagonal of the map from targets to fitted values.

    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> found = ridge("pairs", x, x @ torch.ones(4, 2))
    >>> bool((found.head(x) - x @ torch.ones(4, 2)).abs().max() < 0.1)
    True

    Raises:
        InputError: fewer than three rows.
    """
    count = len(features)
    if count < 3:
        raise InputError(f"a map cannot be fitted to {count} rows: give at least 3, better some hundreds")
    head = Head(features.shape[1], targets.shape[1], 0)
    head.fit_standardisation(features.float())
    x, y = ((features.float() - head.mean) / head.std).double(), targets.double()
    middle = y.mean(0)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)  # (N, k), (k,), (k, f)
    uy = u.T @ (y - middle)  # (k, d)

    def fitted(decay: float) -> tuple[float, float, Tensor, Tensor]:
        share = s.square() / (s.square() + decay * s.square().mean())  # (k,)
        leverage = 1 / count + u.square() @ share  # (N,)
        residual = (y - middle - u @ (share[:, None] * uy)) / (1 - leverage)[:, None]
        return float(residual.square().mean()), decay, share, y - residual

    _, decay, share, left_out = min(map(fitted, DECAYS), key=lambda fit: fit[0])
    weight = (vt.T * (share / s.clamp(min=1e-12))) @ uy  # (f, d)
    head.linear.weight.copy_(weight.T)
    head.linear.bias.copy_(middle)
    spread = float((y - middle).square().sum(1).mean().sqrt())
    bridge = Bridge(way, middle.tolist(), spread)
    limit = float(bridge.uncertainty(left_out.float()).quantile(0.95))
    return Ridge(head.eval(), replace(bridge, limit=limit), left_out.float(), decay)


@torch.no_grad()
def from_captions(sound_space: Tensor, image_space: Tensor, sounds: Tensor, shift: Tensor | None) -> Ridge:
    """A head from captions: the map from a space of sound and text to one of text and image, at sounds' own mean.

    In either space a modality lies apart (Liang et al. 2022): sounds are centred by their mean as captions are by theirs, and
    what comes out is moved by `shift` to where pictures lie.

    Args:
        sound_space: embeddings (N, f) of captions by the text encoder of the sound's space.
        image_space: unit embeddings (N, d) of the same by the decoder's.
        sounds: embeddings (M, f) of any sounds; nothing has to be known of them.
        shift: mean unit image embedding less mean unit text embedding (d,), where it was measured.
    """
    found = ridge("text", sound_space, image_space + (0 if shift is None else shift))
    found.head.mean.copy_(sounds.mean(0))
    return found


def ranks(predicted: Tensor, targets: Tensor, own: Sequence[str], of: Sequence[str]) -> Tensor:
    """How many wrong targets (M, d) lie as near (by cosine) to each prediction (N, d) as the nearest right one: (N,).

    Args:
        own: the label of each prediction; of: of each target. Equal labels are right.

    >>> ranks(torch.eye(3), torch.eye(3)[[0, 2, 1]], "abc", "abc")
    tensor([0, 1, 1])
    """
    near = F.normalize(predicted.float(), dim=1) @ F.normalize(targets.float(), dim=1).T  # (N, M)
    numbers = {label: i for i, label in enumerate(of)}
    right = torch.tensor([numbers.get(label, -1) for label in own])[:, None] == torch.tensor([numbers[label] for label in of])
    best = near.masked_fill(~right, -2).amax(1, keepdim=True)
    return ((near >= best) & ~right).sum(1)


def recall(found: Tensor, gallery: int) -> dict[str, Any]:
    """Shares of ranks (N,) below 1 and 5 among `gallery` targets, with Wilson's 95 % intervals, and what chance would give.

    >>> recall(torch.tensor([0, 3, 7, 0]), 100)["top1"]
    0.5
    """
    count = len(found)
    out: dict[str, Any] = {"n": count, "gallery": gallery}
    for k in (1, 5):
        share = float((found < k).double().mean())
        out |= {f"top{k}": share, f"top{k}_ci95": list(wilson(share * count, count)), f"chance{k}": min(1.0, k / gallery)}
    return out


def measured(raw: Tensor, bridge: Bridge, found: Tensor, ids: Sequence[str], gallery: int) -> dict[str, Any]:
    """A report's recall over prompts with these ranks (N,), and rank and uncertainty of each."""
    unsure = bridge.uncertainty(raw)
    rows = zip(ids, found.tolist(), unsure.tolist(), strict=True)
    return {
        "recall": recall(found, gallery),
        "prompts": [{"prompt": name, "rank": rank + 1, "uncertainty": round(u, 3)} for name, rank, u in rows],
    }


def write(head: Head, bridge: Bridge, encoder: Mapping[str, Any], folder: Path) -> None:
    """Writes a head's folder as `train` does, with `encoder.json`, and the bridge beside them, last."""
    save_head(head, folder)
    (folder / "encoder.json").write_text(json.dumps(dict(encoder), indent=2, ensure_ascii=False) + "\n", "utf-8")
    bridge.save(folder)


def text_to_image_shift(folder: Path) -> Tensor | None:
    """The mean shift (d,) from unit text to unit image embeddings that was measured with a scale, None where it was not."""
    path = folder / SHIFT
    return load_file(path)["text_to_image"] if path.is_file() else None


def captions() -> list[str]:
    """3,000 short captions: the names of YAMNet's 521 events and of ImageNet's 1,000 classes, and pairs of them.

    >>> len(captions()), captions()[0], captions()[521]
    (3000, 'speech', 'tench')
    """
    from timm.data import ImageNetInfo

    info, dice = ImageNetInfo(), random.Random(0)
    heard = yamnet.events()[1]
    seen = [info.index_to_description(i, detailed=False).split(",")[0] for i in range(info.num_classes())]
    found = dict.fromkeys(heard + seen)
    while len(found) < CAPTIONS:
        found[f"{dice.choice(heard + seen)} and {dice.choice(heard)}"] = None
    return list(found)


def recordings() -> dict[str, Path]:
    """The six recordings that come with the package, by what they are of.

    >>> sorted(recordings())
    ['chicken', 'cow', 'drum', 'guitar', 'pig', 'train']
    """
    return {path.stem: path for path in sorted(shipped("samples").glob("*.flac"))}


@torch.no_grad()
def events_head(
    encoder: Encoder, layer: nn.Linear, names: Sequence[str], embed: Callable[[list[str]], Tensor], shift: Tensor | None
) -> tuple[Head, Bridge]:
    """`from_events` with the names' embeddings, and how it does on the package's recordings, none of which it was made from.

    Args:
        encoder: a sound encoder; layer, names: the tagger's last layer on its features, and its classes.
        embed: texts to unit embeddings (B, d) of the decoder's space.
        shift: as `from_events` takes it.
    """
    head, bridge = from_events(layer, names, embed(list(names)), shift)
    rate = int(getattr(encoder, "rate"))  # noqa: B009  a sound encoder's own attribute
    sounds = [encoder(encoder.prepare([load_sound(path, rate, encoder.downmix)])) for path in recordings().values()]
    raw = head(torch.cat(sounds))
    concepts = json.loads(shipped("starter", "concepts.json").read_text("utf-8"))
    targets = embed(concepts) + (0 if shift is None else shift)
    found = ranks(raw, targets, list(recordings()), concepts)
    return head, replace(bridge, report=measured(raw, bridge, found, list(recordings()), len(concepts)))


def default_head(folder: Path, embed: Callable[[list[str]], Tensor], text: Mapping[str, Any]) -> Path:
    """The folder of the head that draws sound by the names of YAMNet's events; the head is made and kept there the first time.

    Args:
        folder: inside the one where the decoder's scale and shift are kept.
        embed: texts to unit embeddings (B, d) of the decoder's space.
        text: which encoder that is; another one has the head made anew.
    """
    found = read_bridge(folder)
    if found is None or found.report.get("text") != text:
        encoder = load_encoder(NOWHERE, None, {"encoder": "yamnet"})
        head, bridge = events_head(encoder, *yamnet.events(), embed, text_to_image_shift(folder.parent))
        write(head, replace(bridge, report=bridge.report | {"text": dict(text)}), {"encoder": "yamnet"}, folder)
    return folder
