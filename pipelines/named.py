"""What a text is drawn as, where that is not the point that it is encoded to: the things that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F

from unialign_gen.aligner import Aligner
from unialign_gen.concepts import Understanding
from unialign_gen.media.text import reworded
from unialign_gen.notes import muted, tell
from unialign_gen.request import Prompt

from .beside import Box, Colour
from .compounds import meant
from .phrases import COLOURS, are_things, bare, colour_of, phrases_of, related
from .prior import EmbeddingPrior
from .prompts import encode_prompts
from .unsaid import unsaid

# a prompt's inputs, where they stand if that is apart, and on what ground
Row = tuple[Sequence[Prompt], tuple[Box, ...] | None, Colour | None]


def several(
    prompt: Prompt, known: Understanding, aligner: Aligner, prior: EmbeddingPrior | None, apart: bool, flat: bool
) -> Row | None:
    """The things that an encoded text names, each encoded, and their places; None where it is drawn as one point.

    Args:
        apart: who does what with what is two things too, where one picture would leave one out.
        flat: a ground of a colour is put behind them.
    """
    if prompt.kind != "text" or prompt.weight <= 0:
        return None
    text = prompt.value
    if re.sub("^(?:an?|the) ", "", bare(text).lower()) in known.called:  # bow and arrow
        return None
    phrases = phrases_of(text, known.nouns)
    # one picture of all of it, unless something would be left out
    if lost := phrases is None and apart and prior is not None and known(prompt.embedding[None], "text")[0].understood:
        phrases = related(text, known.nouns)
        if phrases and not unsaid(text, partial(drawn, known=known, aligner=aligner, prior=prior), known.nouns):
            phrases = None
    if phrases is None or (not flat and sum(phrases.counts) == 1):
        return None
    ground = colour_of(phrases.ground) if flat else None
    texts = phrases.grounded if ground is None else phrases.texts
    with muted():  # what is to say of their words was said of the whole text
        (things,) = encode_prompts(aligner, [[Prompt("text", text) for text in texts]])
    understood = known(torch.stack([thing.embedding for thing in things]), "text")
    if not are_things(texts, understood, by_name=lost):
        return None
    every = [thing for thing, count in zip(things, phrases.counts, strict=True) for _ in range(count)]
    return every, phrases.boxes, ground


def by_name(prompt: Prompt, known: Understanding, prior: EmbeddingPrior) -> Prompt:
    """A text that is drawn as another thing than it names, "a car key" as a car, as far from what it names instead; with the
    colour that it says.
    """
    if prompt.kind != "text":
        return prompt
    thing = drawn_as(prompt, prior)
    named = meant(prompt.value, known, known.nearness(prompt.embedding[None])[0], thing)
    if named is None:
        return prompt
    shift = prior.points[named].float() - prior.points[thing].float()
    if COLOURS.keys() & set(bare(prompt.value).lower().split()):
        shift = prior.without_colour(shift)
    return replace(prompt, embedding=F.normalize(prompt.embedding + shift.to(prompt.embedding), dim=0))


def drawn_as(prompt: Prompt, prior: EmbeddingPrior) -> int:
    """The place of the known thing that an encoded prompt is moved to: the likeliest, which need not be the nearest."""
    return prior.likeliest(prompt.embedding.float())


def drawn(texts: Sequence[str], known: Understanding, aligner: Aligner, prior: EmbeddingPrior) -> list[str]:
    """The names of the known things that some texts, of one thing each, are drawn as."""
    with muted():
        prompts = encode_prompts(aligner, [[Prompt("text", text)] for text in texts])
    return [known.names[drawn_as(by_name(p, known, prior), prior)] for (p,) in prompts]


def tell_not_understood(
    rows: Sequence[Row], known: Understanding | None, aligner: Aligner, prior: EmbeddingPrior | None
) -> None:
    """A note on every encoded prompt that is like nothing the checkpoint knows; and where a prior moves them, on words that are
    drawn as others or not at all.
    """
    if known is None:
        return
    said = {id(p): p for row, _, _ in rows for p in row if p.kind != "embeds"}  # each of several once
    for prompt in said.values():
        (found,) = known(prompt.embedding[None], prompt.kind)
        if not found.understood:
            tell("not understood", name=repr(prompt.name), guesses=", ".join(found.nearest))
        elif prompt.kind == "text" and prior is not None and prompt.weight > 0:
            thing = known.names[drawn_as(prompt, prior)]
            if not replace(found, nearest=(thing,)).named_in(prompt.name):
                tell("drawn as", name=repr(prompt.name), guess=thing)
                continue
            read, _ = reworded(prompt.value, getattr(aligner.part("text").encoder, "words", {}))
            if what := unsaid(read, partial(drawn, known=known, aligner=aligner, prior=prior), known.nouns):
                tell("left out", what=", ".join(map(repr, what)), name=repr(prompt.name), thing=thing)


@lru_cache(maxsize=8)
def understanding_in(folder: Path | None) -> Understanding | None:
    """What a checkpoint's folder says of which prompts it understands; None where it says nothing."""
    return None if folder is None else Understanding.from_checkpoint(folder)
