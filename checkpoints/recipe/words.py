"""Words that no training picture is called by, taught by what WordNet (Fellbaum 1998) says they are.

A caribou is a deer, and a heron a wading bird as a flamingo is: the word is pulled to the pictures of the nearest things that
there are pictures of. Which of a name's meanings its pictures show is read off their other captions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from unialign_gen.errors import as_input_error

from .concepts import CONCEPTS, NOUN, article
from .features import TextFeatures
from .rows import Picture, grouped

FOLDER = "wordnet-base/usr/share/wordnet"
ANIMAL, ARTIFACT, PERSON = 5, 6, 18  # numbers of the lexicographers' files
VISIBLE = {ANIMAL, ARTIFACT, 8, 13, 17, PERSON, 19, 20, 27}  # also body, food, object, phenomenon, plant, substance
UP = 2  # steps to broader kinds
MOST = 4  # a kind with more of its nearest things says too little
MARGIN = 0.06  # of cosine, by which a less usual meaning must be nearer
SORTS = {"animal": ANIMAL, "vehicle": ARTIFACT, "instrument": ARTIFACT, "household": ARTIFACT}


@dataclass(frozen=True)
class Synset:
    """Words of one meaning."""

    words: tuple[str, ...]  # in lower case unless they are names
    broader: tuple[str, ...]  # offsets of what this is a kind of
    gloss: str  # its definition, with examples
    file: int  # number of the lexicographers' file that it stands in, which sorts meanings coarsely

    @property
    def visible(self) -> bool:
        return self.file in VISIBLE


@dataclass(frozen=True)
class Nouns:
    """All nouns."""

    synsets: dict[str, Synset]  # by offset
    senses: dict[str, tuple[str, ...]]  # offsets by word, the most usual meaning first

    def definition(self, offset: str) -> str:
        """A meaning in words: what it is called, what it is a kind of, and its gloss without examples."""
        synset = self.synsets[offset]
        broader = [self.synsets[s].words[0] for s in synset.broader[:1]]
        return f"{', '.join([synset.words[0], *broader])}: {synset.gloss.split(';')[0]}"


def read(root: Path) -> Nouns:
    """The nouns of WordNet in a data folder, out of its `data.noun` and `index.noun`.

    Their format is that of wndb(5WN). A line of data: offset, file number, type, count of words (hexadecimal), words with a
    number each, count of pointers, pointers of four fields, and the gloss after a bar. A line of the index ends with a word's
    offsets. Lines that begin with a space are the licence.

    Raises:
        InputError: they are not there.
    """
    folder = root / "unpacked" / FOLDER
    with as_input_error(f"no nouns of WordNet in {folder}: run `data` first", OSError):
        records, index = (re.findall("^[^ ].*", (folder / f"{name}.noun").read_text(), re.M) for name in ("data", "index"))
    synsets: dict[str, Synset] = {}
    for line in records:
        data, _, gloss = line.partition(" | ")
        offset, file, _, count, *rest = data.split()
        words = tuple(word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2])
        synsets[offset] = Synset(words, tuple(re.findall(r" @ (\d+) n ", data)), gloss.strip(), int(file))
    senses: dict[str, tuple[str, ...]] = {}
    for line in index:
        entry, _, count, *rest = line.split()
        word = entry.replace("_", " ")  # in lower case here, even of names: those are left out
        senses[word] = tuple(s for s in rest[-int(count) :] if word in synsets[s].words)
    return Nouns(synsets, senses)


def known_things(nouns: Nouns, captions: Mapping[str, Tensor], glosses: Mapping[str, Tensor]) -> dict[str, str]:
    """The visible meaning of each name that has one; of a concept one of its kind.

    Args:
        captions: a unit text feature (d,) of what pictures of this name are called, by name.
        glosses: a unit text feature (d,) of the definition, by synset.
    """
    out: dict[str, str] = {}
    for name, feature in captions.items():
        sort = SORTS.get(CONCEPTS[name]["kind"]) if name in CONCEPTS else None
        offsets = [s for s in nouns.senses.get(name, ()) if sort in (None, nouns.synsets[s].file)]
        score = {s: float(feature @ glosses[s]) - MARGIN * place for place, s in enumerate(offsets)}
        best = max(score, key=score.__getitem__, default=None)
        if best is not None and nouns.synsets[best].visible:
            out[name] = best
    return out


def nearest_things(nouns: Nouns, known: Mapping[str, str]) -> dict[str, set[str]]:
    """Names of the nearest known things of each visible synset that has some.

    The synset itself if it is one, or else those fewest steps below it, or else those of its nearest broader kind that is
    one or has some below.
    """

    def upwards(start: str) -> Iterator[list[str]]:
        level = [start]
        for _ in range(UP + 1):
            yield level
            level = [b for s in level for b in nouns.synsets[s].broader]

    below: dict[str, dict[int, set[str]]] = {}  # by synset and steps
    for name, start in known.items():
        for steps, level in enumerate(upwards(start)):
            for synset in level:
                below.setdefault(synset, {}).setdefault(steps, set()).add(name)
    least = {synset: things[min(things)] for synset, things in below.items()}
    out: dict[str, set[str]] = {}
    for start in (offset for offset, meaning in nouns.synsets.items() if meaning.visible):
        found = (set().union(*(least.get(s, ()) for s in level)) for level in upwards(start))
        out[start] = next(filter(None, found), set())
    return {start: things for start, things in out.items() if 0 < len(things) <= MOST}


def taught(nouns: Nouns, known: Mapping[str, str], meant: Mapping[str, str], captions: Collection[str]) -> dict[str, list[str]]:
    """For each name the words that its pictures teach, sorted: common nouns of at most two words that no picture is called.

    What people are called is left out: much of it is said of a person by others, and no drawing of somebody means it.

    Args:
        meant: the meaning of some words, by word; that of all others is their most usual visible one.
        captions: of all pictures, in lower case.
    """
    nearest = nearest_things(nouns, known)
    out: dict[str, list[str]] = {}
    for word, offsets in sorted(nouns.senses.items()):
        meaning = meant.get(word) or next((s for s in offsets if nouns.synsets[s].visible), "")
        if meaning in nearest and nouns.synsets[meaning].file != PERSON and word not in captions and NOUN.fullmatch(word):
            for name in nearest[meaning]:
                out.setdefault(name, []).append(word)
    return dict(sorted(out.items()))


def lessons(
    nouns: Nouns, texts: TextFeatures, pictures: Sequence[Picture], sounds: Mapping[str, list[str]]
) -> list[tuple[Picture, list[str]]]:
    """Pictures with what they teach: each word, and the same with its article, by one picture of each of its names.

    What only sounds are called (captions by concept) is taught too, in the meaning that their captions suggest.
    """
    # what is called like a concept but is none is left out: the table has a reason not to count it
    named = ((name, row) for row in pictures for name in row.concepts or [row.name])
    shown = grouped((name, row) for name, row in named if name in row.concepts or name not in CONCEPTS)
    captions = {name: [c for row in rows for c in row.captions] for name, rows in shown.items()}
    captions |= {name: found for name, found in sounds.items() if name not in shown}
    captions = {name: found for name, found in captions.items() if name in nouns.senses and found}
    glosses = {s: nouns.definition(s) for name in captions for s in nouns.senses[name]}
    texts.encode([*(c for found in captions.values() for c in found), *glosses.values()])
    called = {name: F.normalize(texts(found).mean(0), dim=0) for name, found in captions.items()}
    meanings = known_things(nouns, called, {s: F.normalize(texts([gloss])[0], dim=0) for s, gloss in glosses.items()})
    known = {name: synset for name, synset in meanings.items() if name in shown}
    learned: dict[str, tuple[Picture, list[str]]] = {}
    said = {c.lower() for row in pictures for c in row.captions}
    for name, words in taught(nouns, known, meanings, said).items():
        for i, word in enumerate(words):
            picture = shown[name][i % len(shown[name])]
            learned.setdefault(picture.id, (picture, []))[1].extend(dict.fromkeys((word, article(word))))
    return list(learned.values())
