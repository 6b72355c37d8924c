"""Nouns, and which kind of thing each is, out of WordNet's own files (Fellbaum 1998)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unialign_gen.errors import InputError

PACKAGE, FOLDER = "wordnet-base", "usr/share/wordnet"
# numbers of the lexicographers' files whose nouns name what can be seen
ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PHENOMENON, PLANT, SUBSTANCE = 5, 6, 8, 13, 17, 18, 19, 20, 27
VISIBLE = {ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PHENOMENON, PLANT, SUBSTANCE}


@dataclass(frozen=True)
class Synset:
    """Words of one meaning.

    Attributes:
        words: in lower case unless they are names.
        broader: offsets of what this is a kind of.
        gloss: its definition, with examples.
        file: number of the lexicographers' file that it stands in, which sorts meanings coarsely.
    """

    words: tuple[str, ...]
    broader: tuple[str, ...]
    gloss: str
    file: int

    @property
    def visible(self) -> bool:
        return self.file in VISIBLE


@dataclass(frozen=True)
class Nouns:
    """All nouns.

    Attributes:
        synsets: by offset.
        senses: offsets by word, the most usual meaning first.
    """

    synsets: dict[str, Synset]
    senses: dict[str, tuple[str, ...]]

    def definition(self, offset: str) -> str:
        """A meaning in words: what it is called, what it is a kind of, and its gloss without examples."""
        synset = self.synsets[offset]
        broader = [self.synsets[s].words[0] for s in synset.broader[:1]]
        return f"{', '.join([synset.words[0], *broader])}: {synset.gloss.split(';')[0]}"


def read(folder: Path) -> Nouns:
    """The nouns of a folder with `data.noun` and `index.noun`.

    Their format is that of wndb(5WN). A line of data: offset, file number, type, count of words (hexadecimal), words with a
    number each, count of pointers, pointers of four fields, and the gloss after a bar. A line of the index ends with a word's
    offsets. Lines that begin with a space are the licence.

    Raises:
        InputError: they are not there.
    """
    if not (folder / "data.noun").is_file() or not (folder / "index.noun").is_file():
        raise InputError(f"no nouns of WordNet in {folder}: run `data` again, which downloads {PACKAGE}")
    synsets: dict[str, Synset] = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        data, _, gloss = line.partition(" | ")
        offset, file, _, count, *rest = data.split()
        width = 2 * int(count, 16)
        pointers = rest[width + 1 :]
        broader = tuple(
            target
            for symbol, target, part in zip(pointers[::4], pointers[1::4], pointers[2::4], strict=True)
            if (symbol, part) == ("@", "n")
        )
        words = tuple(w.replace("_", " ") for w in rest[:width:2])
        synsets[offset] = Synset(words, broader, gloss.strip(), int(file))
    senses: dict[str, tuple[str, ...]] = {}
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith(" "):
            entry, _, count, *rest = line.split()
            word = entry.replace("_", " ")  # in lower case here, even of names: those are left out
            senses[word] = tuple(s for s in rest[-int(count) :] if word in synsets[s].words)
    return Nouns(synsets, senses)
