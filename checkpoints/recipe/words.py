"""Words that no training picture is called by, taught by what WordNet says they are.

A caribou is a deer, and a heron a wading bird as a flamingo is: the word is pulled to the pictures of the nearest things that
there are pictures of. Which of a name's meanings its pictures show is read off their other captions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import features, wordnet
from .concepts import CONCEPTS, article
from .manifest import Row
from .wordnet import Nouns

UP = 2  # steps to broader kinds
MOST = 4  # a kind with more of its nearest things says too little
RARER = 0.06  # of a cosine, that a less usual meaning must be nearer
SORTS = {"animal": wordnet.ANIMAL, "vehicle": wordnet.ARTIFACT, "instrument": wordnet.ARTIFACT, "household": wordnet.ARTIFACT}
PLAIN = re.compile(r"[a-z]+([ -][a-z]+)?")


def known_things(nouns: Nouns, captions: Mapping[str, Tensor], glosses: Mapping[str, Tensor]) -> dict[str, str]:
    """The visible meaning of each name that has one; of a concept one of its kind.

    Args:
        captions: a unit text feature (d,) of what pictures of this name are called, by name.
        glosses: a unit text feature (d,) of the definition, by synset.
    """
    out: dict[str, str] = {}
    for name, feature in captions.items():
        sort = SORTS.get(CONCEPTS[name].kind) if name in CONCEPTS else None
        offsets = [s for s in nouns.senses.get(name, ()) if sort in (None, nouns.synsets[s].file)]
        score = {s: float(feature @ glosses[s]) - RARER * place for place, s in enumerate(offsets)}
        best = max(score, key=score.__getitem__, default=None)
        if best is not None and nouns.synsets[best].visible:
            out[name] = best
    return out


def nearest_things(nouns: Nouns, known: Mapping[str, str]) -> dict[str, set[str]]:
    """Names of the nearest known things of each visible synset that has some.

    The synset itself if it is one, or else those fewest steps below it, or else those of its nearest broader kind that is
    one or has some below.
    """
    named: dict[str, set[str]] = {}
    for name, synset in known.items():
        named.setdefault(synset, set()).add(name)
    below: dict[str, tuple[int, set[str]]] = {s: (0, names) for s, names in named.items()}
    for start, names in named.items():
        level = [start]
        for depth in range(1, UP + 1):
            level = [b for s in level for b in nouns.synsets[s].broader]
            for broader in level:
                least, those = below.get(broader, (depth, set()))
                if depth <= least:
                    below[broader] = (depth, names | (those if depth == least else set()))
    out: dict[str, set[str]] = {}
    for start, meaning in nouns.synsets.items():
        level = [start] if meaning.visible else []
        for _ in range(UP + 1):
            found = [below[s][1] for s in level if s in below]
            if found:
                things = set().union(*found)
                if len(things) <= MOST:
                    out[start] = things
                break
            level = [b for s in level for b in nouns.synsets[s].broader]
    return out


def taught(nouns: Nouns, known: Mapping[str, str], meant: Mapping[str, str], captions: Collection[str]) -> dict[str, list[str]]:
    """For each name the words that its pictures teach, sorted: common nouns of at most two words that no picture is called.

    What people are called is left out: much of it is said of a person by others, and no drawing of somebody means it.

    Args:
        meant: the meaning of some words, by word; that of all others is their most usual visible one.
        captions: of all pictures, in lower case.
    """
    nearest = nearest_things(nouns, known)
    out: dict[str, set[str]] = {}
    for word, offsets in nouns.senses.items():
        meaning = meant.get(word) or next((s for s in offsets if nouns.synsets[s].visible), None)
        if meaning is None or nouns.synsets[meaning].file == wordnet.PERSON:
            continue
        if meaning in nearest and word not in captions and PLAIN.fullmatch(word):
            for name in nearest[meaning]:
                out.setdefault(name, set()).add(word)
    return {name: sorted(words) for name, words in sorted(out.items())}


def names_of(row: Row) -> list[str]:
    """What a picture or sound is called: its concepts, or, outside the concept table, the first of its captions."""
    if row.concepts or not row.captions:
        return row.concepts
    name = row.captions[0].lower()
    return [] if name in CONCEPTS else [name]  # the table has a reason not to count it as one


def lessons(root: Path, nouns: Nouns, pictures: Sequence[Row], sounds: Sequence[Row]) -> list[tuple[Row, list[str]]]:
    """Pictures with what they teach: each word, and the same with its article, by one picture of each of its names.

    What only sounds are called is taught too, in the meaning that their captions suggest.
    """
    shown: dict[str, list[Row]] = {}
    for row in pictures:
        for name in names_of(row):
            shown.setdefault(name, []).append(row)
    captions = {name: [c for row in rows for c in row.captions] for name, rows in shown.items()}
    for row in sounds:
        for name in names_of(row):
            if name not in shown:
                captions.setdefault(name, []).extend(row.captions)
    captions = {name: found for name, found in captions.items() if name in nouns.senses}
    glosses = {s: nouns.definition(s) for name in captions for s in nouns.senses[name]}
    vectors = features.of_texts(root, [*(c for found in captions.values() for c in found), *glosses.values()])
    called = {n: F.normalize(torch.stack([vectors[c] for c in found]).mean(0), dim=0) for n, found in captions.items()}
    meanings = known_things(nouns, called, {s: F.normalize(vectors[gloss], dim=0) for s, gloss in glosses.items()})
    known = {name: synset for name, synset in meanings.items() if name in shown}
    learned: dict[str, list[str]] = {}
    by_id = {row.id: row for row in pictures}
    said = {c.lower() for row in pictures for c in row.captions}
    for name, words in taught(nouns, known, meanings, said).items():
        for i, word in enumerate(words):
            picture = shown[name][i % len(shown[name])]
            learned.setdefault(picture.id, []).extend(dict.fromkeys((word, article(word))))
    return [(by_id[i], words) for i, words in learned.items()]
