"""What a text is drawn as, where that is not the point that it is encoded to: the things that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.concepts import Understanding
from unialign_gen.concepts.understanding import is_called, without_articles
from unialign_gen.media.text import reworded
from unialign_gen.notes import muted, tell
from unialign_gen.request import Prompt

from .beside import WHOLE, Box, Colour
from .colours import COLOURS, colour_of, own_colours, without_colours
from .compounds import meant
from .phrases import are_things, bare, is_arranged, phrases_of, related, without_ground
from .prior import EmbeddingPrior
from .prompts import encode_prompts
from .unsaid import unsaid
from .words import thing_ends

# a prompt's inputs; places for them, or one for all of them as one point, if they are drawn alone; and the grounds of these
Row = tuple[Sequence[Prompt], tuple[Box, ...] | None, tuple[Colour | None, ...]]


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
    if without_articles(bare(text)) in known.called:  # bow and arrow
        return None
    phrases = phrases_of(text, known.nouns)
    # one picture of all of it, unless something would be left out
    if lost := phrases is None and apart and prior is not None and known(prompt.embedding[None], "text")[0].understood:
        phrases = related(text, known.nouns)
        if phrases and not unsaid(text, partial(drawn, known=known, aligner=aligner, prior=prior), known.nouns):
            phrases = None
    if phrases is None or (not flat and sum(phrases.counts) == 1):
        return None
    texts, grounds = zip(*(on_ground(text) if flat else (text, None) for text in phrases.grounded), strict=True)
    things = encoded(texts, aligner)
    understood = known(torch.stack([thing.embedding for thing in things]), "text")
    if not are_things(texts, understood, by_name=lost):
        return None
    every = [(*one, count) for *one, count in zip(things, grounds, phrases.counts, strict=True)]
    things, grounds = zip(*((thing, ground) for thing, ground, count in every for _ in range(count)), strict=True)
    return things, phrases.boxes, grounds


def on_ground(text: str) -> tuple[str, Colour | None]:
    """A text without its ground, and the colour of that; as it is, with None, where it has none of a colour."""
    thing, ground = without_ground(text)
    colour = colour_of(ground)
    return (thing, colour) if colour and thing else (text, None)


def encoded(texts: Sequence[str], aligner: Aligner) -> Sequence[Prompt]:
    """Texts as encoded prompts, without a note: what is to say of their words was said of the whole text."""
    with muted():
        return encode_prompts(aligner, [[Prompt("text", text) for text in texts]])[0]


def words_of(aligner: Aligner) -> Mapping[str, str]:
    """What the text encoder reads other words as, see `media.text.reworded`."""
    return getattr(aligner.part("text").encoder, "words", {}) if "text" in aligner.modalities else {}


def as_named(
    prompt: Prompt, known: Understanding, aligner: Aligner, prior: EmbeddingPrior, evidence: Tensor | None = None
) -> Prompt:
    """A text as the thing that it names, in the colour that it says of it; anything else as it is.

    The colour of what is with or around a thing would be the thing's own: "a black cat with green eyes" is encoded without the
    green. Of "an owl wearing glasses" or "a cat on a mat", which name no several things to draw, nothing stays of the layout of
    two that they may be encoded as: it would be drawn as scraps of both. A text that is drawn as another thing than its words
    are nearest to, or than it names, "a car key" as a car, is moved as far as what it means lies from that.

    Args:
        evidence: `spoken_for` of this text, where that is at hand.
    """
    if prompt.kind != "text" or "text" not in aligner.modalities:
        return prompt

    def with_text(other: str) -> Prompt:
        return replace(prompt, embedding=encoded([other], aligner)[0].embedding)

    def moved(start: int, end: int) -> Prompt:
        shift = prior.points[end].float() - prior.points[start].float()
        if COLOURS.keys() & set(bare(text).lower().split()):
            shift = prior.without_colour(shift)
        return replace(prompt, embedding=F.normalize(prompt.embedding + shift.to(prompt.embedding), dim=0))

    text, _ = reworded(prompt.value, words_of(aligner))
    if (own := own_colours(text)) != text:
        words, name = text.lower().split(), known.names[drawn_as(prompt, prior)]
        if not any(is_called(name, colour) for colour in COLOURS.keys() & set(words[thing_ends(words) :])):  # red hair
            prompt, text = with_text(own), own
    thing = worded = drawn_as(prompt, prior)
    if known(prompt.embedding[None], "text")[0].understood:  # else it stays what nothing known is like
        if text != prompt.value or evidence is None:
            (evidence,) = spoken_for([text], known, aligner)
        worded = prior.likeliest(prompt.embedding.float(), evidence=evidence)
    named = meant(text, known, known.nearness(prompt.embedding[None])[0], worded)
    target = worded if named is None else named
    if target != thing:
        prompt = moved(thing, target)
    if is_arranged(text) or not prior.arranged(prompt.embedding):
        return prompt
    return replace(prompt, embedding=prior.of_one_thing(prompt.embedding))


def spoken_for(texts: Sequence[str], known: Understanding, aligner: Aligner) -> Sequence[Tensor | None]:
    """How the words of each text, but for its colours, speak for each known thing (things,), see `Understanding.worded`.

    None of an encoder that is not the checkpoint's.
    """

    def plain(text: str) -> str:
        words, end = text.split(), thing_ends(text.lower().split())
        return " ".join([without_colours(" ".join(words[:end])), *words[end:]])

    if known.wordings is None or "text" in aligner.given:
        return [None] * len(texts)
    return list(known.worded(aligner("text", [plain(text) for text in texts], features=True)))


def drawn_as(prompt: Prompt, prior: EmbeddingPrior) -> int:
    """The place of the known thing that an encoded prompt is moved to: the likeliest, which need not be the nearest."""
    return prior.likeliest(prompt.embedding.float())


def drawn(texts: Sequence[str], known: Understanding, aligner: Aligner, prior: EmbeddingPrior) -> list[str]:
    """The names of the known things that some texts, of one thing each, are drawn as."""
    pairs = zip(encoded(texts, aligner), spoken_for(texts, known, aligner), strict=True)
    return [known.names[drawn_as(as_named(p, known, aligner, prior, said), prior)] for p, said in pairs]


def mixed_on_grounds(row: Sequence[Prompt], boxes: tuple[Box, ...] | None, aligner: Aligner) -> Row:
    """Inputs of a mix without the grounds of a colour that their texts say, and these: what is drawn is put on them. One point
    has their mix.
    """

    def lifted(prompt: Prompt) -> tuple[Prompt, Colour | None]:
        text, ground = on_ground(prompt.value) if prompt.kind == "text" and prompt.weight > 0 else ("", None)
        if ground is None:
            return prompt, None
        return replace(encoded([text], aligner)[0], weight=prompt.weight), ground

    things, grounds = zip(*map(lifted, row), strict=True)
    if boxes is None and any(grounds):
        there = [(thing.weight, ground) for thing, ground in zip(things, grounds, strict=True) if ground]
        mixed = tuple(
            sum(weight * ground[i] for weight, ground in there) / sum(weight for weight, _ in there) for i in range(3)
        )
        return things, (WHOLE,), (mixed,)
    return things, boxes, grounds


def tell_one_point(prompts: Sequence[Sequence[Prompt]], rows: Sequence[Row]) -> None:
    """A note on every prompt whose only text names several things, where they are not drawn apart."""
    for (first, *others), (_, boxes, _) in zip(prompts, rows, strict=True):
        if not others and boxes is not None and len(boxes) > 1:
            tell("one point", name=repr(first.name))


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
            read, _ = reworded(prompt.value, words_of(aligner))
            if what := unsaid(read, partial(drawn, known=known, aligner=aligner, prior=prior), known.nouns):
                tell("left out", what=", ".join(map(repr, what)), name=repr(prompt.name), thing=thing)


@lru_cache(maxsize=8)
def understanding_in(folder: Path | None) -> Understanding | None:
    """What a checkpoint's folder says of which prompts it understands; None where it says nothing."""
    return None if folder is None else Understanding.from_checkpoint(folder)
