"""Whether a prompt was understood: how near its embedding lies to anything known, against a limit for its modality."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import as_input_error
from ..output import write_tensors

FILE, WORDINGS = "understanding.json", "understanding.safetensors"
CONCENTRATION = 50.0  # of texts about what a thing is called: from 20 to 80 much alike
EIGHT_BITS = 127  # wordings are kept in eight bits
ARTICLES = ("a", "an", "the")
FILLERS = {"the", "and", "with", "for", "from"}
AROUND = ("with", "without", "on", "in", "at", "under", "behind", "from", "for")
LETTERS = re.compile(r"[^\W\d_]+")
ENDINGS = {"s": "", "ies": "y", "ves": "f", "ing": "e", "ed": "e", "er": "e", "ers": "e", "y": "e"}  # for what they may stand


@dataclass(frozen=True)
class Understood:
    """What is said of one embedding.

    Attributes:
        understood: whether anything known lies near enough.
        nearness: whitened cosine to the nearest known thing, in [-1, 1].
        nearest: names of the nearest things, nearest first.
    """

    understood: bool
    nearness: float
    nearest: tuple[str, ...]

    def named_in(self, text: str, heads: bool = False) -> bool:
        """Whether what lies nearest is called as a word of a text is; with `heads` by a name's last word.

        >>> found = Understood(True, 0.9, ("dog", "cow"))
        >>> found.named_in("two Dogs"), found.named_in("a puppy")
        (True, False)
        """
        said = set(LETTERS.findall(text.lower())) - FILLERS
        names = [name.split()[-1] if heads and name.strip() else name for name in self.nearest]
        return any(len(word) > 2 and is_called(name, word) for word in said for name in names)


def nouns_of(name: str) -> list[str]:
    """What a thing is by its name: the last word before what is with it or around it; of an ear of corn either.

    >>> [nouns_of(name) for name in ("old key", "mailbox with raised flag", "ear of corn", "card figures - heart")]
    [['key'], ['mailbox'], ['ear', 'corn'], []]
    """
    itself = re.split(rf" (?:{'|'.join(AROUND)}) |[:(,]", name.lower())[0]
    parts = [part.split() for part in re.split(" (?:of|and) ", itself)]
    return [words[-1] for words in parts if words] if all(word.isalpha() for words in parts for word in words) else []


def without_articles(name: str) -> str:
    """A name in lower case without its articles.

    >>> without_articles("A heart with an arrow")
    'heart with arrow'
    """
    return " ".join(word for word in name.lower().split() if word not in ARTICLES)


def is_called(name: str, word: str) -> bool:
    """Whether a name has a word: in the same form or another, or as the end of a longer one.

    >>> [is_called(name, "trucks") for name in ("firetruck", "pickup truck", "train")]
    [True, True, False]
    >>> is_called("man dancing", "dancer"), is_called("rain", "rainy"), is_called("rain", "rainbow")
    (True, True, False)
    """
    stems = stems_of(word)
    return any(stems & stems_of(w) or any(w.endswith(s) for s in stems if len(s) > 2) for w in LETTERS.findall(name.lower()))


def stems_of(word: str) -> set[str]:
    """What a word in lower case may be a form of, itself among them.

    >>> sorted(stems_of("running"))
    ['run', 'runn', 'runne', 'running']
    """
    found = {word}
    for end, new in ENDINGS.items():
        stem = word.removesuffix(end)
        if stem != word and len(stem) > 2:
            found |= {stem, stem + new, re.sub(r"([^s])\1$", r"\1", stem)}
    return found


class Understanding:
    """The known things of a checkpoint, and how near a prompt of each modality lies to one of them if it means anything.

    Nearness is the largest cosine to a known point after whitening, so that colour and style count for less than what tells
    things apart. A limit is what three in a hundred real prompts that training never met stay under (a one-class test in the
    sense of Hendrycks & Gimpel 2017, on distances as in Lee et al. 2018).

    Args:
        names: of the known things.
        points: their unit embeddings (things, d).
        whitening: (d, d).
        limits: by modality; one that is not named is always understood.
        wordings: unit features (things, w) of what each is called, by the checkpoint's text encoder; None where they are not
            known.

    >>> known = Understanding(["dog", "cat"], torch.eye(3)[:2], torch.eye(3), {"text": 0.7})
    >>> dog, nothing = known(torch.eye(3)[[0, 2]], "text", guesses=1)
    >>> dog.understood, dog.nearest, nothing.understood
    (True, ('dog',), False)
    """

    def __init__(
        self,
        names: Sequence[str],
        points: Tensor,
        whitening: Tensor,
        limits: Mapping[str, float],
        wordings: Tensor | None = None,
    ):
        self.names, self.whitening, self.limits = list(names), whitening.float(), dict(limits)
        self.wordings = wordings
        self.keys = F.normalize(points.float() @ self.whitening, dim=1)  # (things, d)

    @cached_property
    def nouns(self) -> frozenset[str]:
        """What the things are by their names."""
        return frozenset(noun for name in self.names for noun in nouns_of(name))

    @cached_property
    def called(self) -> dict[str, list[int]]:
        """Places of the things that have a name, less its articles, and of those that are something by their names."""
        found: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            for said in {without_articles(name), *nouns_of(name)}:
                found.setdefault(said, []).append(place)
        return found

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Understanding | None:
        """That of the checkpoint in `folder`, with the points of its prior; None where it has none.

        Raises:
            InputError: the files do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not (folder / FILE).is_file() or not (folder / "prior").is_dir():
            return None
        with as_input_error(
            f"{folder / FILE} and the prior beside it cannot be used: {{error}}", OSError, ValueError, KeyError, SafetensorError
        ):
            kept = json.loads((folder / FILE).read_text())
            usual = folder / "prior" / "diffusion_pytorch_model.safetensors"
            prior = load_file(usual if usual.is_file() else min(usual.parent.glob("*.safetensors"), default=usual))  # a variant
            if len(kept["names"]) != len(prior["points"]):
                raise ValueError(f"{len(kept['names'])} names for {len(prior['points'])} points")
            wordings = None
            if (folder / WORDINGS).is_file():
                wordings = F.normalize(load_file(folder / WORDINGS)["wordings"].float(), dim=1)
                if len(wordings) != len(kept["names"]):
                    raise ValueError(f"{len(wordings)} wordings for {len(kept['names'])} names")
            return cls(kept["names"], prior["points"], prior["whitening"], kept["limits"], wordings)

    def save(self, folder: Path) -> None:
        """Writes names, limits and wordings; the points are those of the prior in the same checkpoint."""
        (folder / FILE).write_text(json.dumps({"limits": self.limits, "names": self.names}, ensure_ascii=False) + "\n")
        if self.wordings is None:
            (folder / WORDINGS).unlink(missing_ok=True)
        else:
            write_tensors(folder / WORDINGS, {"wordings": (self.wordings * EIGHT_BITS).round().to(torch.int8)})

    def worded(self, features: Tensor) -> Tensor:
        """How texts with features (B, w) speak for each thing (B, things), as logarithms of likelihoods: a von Mises-Fisher
        distribution about what it is called (Banerjee et al. 2005).
        """
        assert self.wordings is not None
        return CONCENTRATION * F.normalize(features.float().cpu(), dim=1) @ self.wordings.T

    def nearness(self, embeddings: Tensor) -> Tensor:
        """Whitened cosines (B, things) of unit embeddings (B, d) to everything known."""
        return F.normalize(embeddings.float().cpu() @ self.whitening, dim=1) @ self.keys.T

    def __call__(self, embeddings: Tensor, modality: str, guesses: int = 3) -> list[Understood]:
        """What is said of each of the unit embeddings (B, d), as the encoders gave them: before the prior moves them."""
        values, places = self.nearness(embeddings).topk(min(guesses, len(self.names)), dim=1)
        limit = self.limits.get(modality, -1.0)
        return [
            Understood(near[0] >= limit, near[0], tuple(self.names[i] for i in at))
            for near, at in zip(values.tolist(), places.tolist(), strict=True)
        ]

    @staticmethod
    def limit(nearness: Tensor, refused: float = 0.03) -> float:
        """The limit under which a share of real prompts falls, by the nearness (N,) of each."""
        return float(torch.quantile(nearness.double(), refused))
