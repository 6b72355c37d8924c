"""Text prompts: cleaned alike for every encoder, and what an encoder cannot read of them is noted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..notes import tell

JOINERS = "\u200c\u200d"  # they shape emoji and some scripts; between Latin letters they are invisible noise
MOST_WORDS, MOST_QUOTED = 5, 80  # in a note: words, characters
NO_NOUN = r"(?:and|or|of|in|on|at|with|is|was)\b"
CRUMB = 2  # characters of a word's pieces


def with_article(name: str) -> str:
    """A thing's English name with a or an."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def clean_text(text: Any) -> str:
    """A text in Unicode's form NFKC, without invisible characters, its spaces single.

    Full-width letters, ligatures and the like become the letters they stand for. Joiners stay between characters outside
    ASCII, where emoji and Indic or Persian words need them. All other format and control characters go.

    Raises:
        InputError: no text, one with a lone surrogate, or one of which nothing is left.
    """
    if not isinstance(text, str):
        raise InputError(f"a text prompt must be a text, got {type(text).__name__}")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError("a text prompt holds half a character (a lone surrogate): it was decoded wrongly; give it as UTF-8")
    normal = unicodedata.normalize("NFKC", text)
    kept = "".join(c for i, c in enumerate(normal) if visible(normal, i))
    found = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in kept).split())
    if not found:
        raise InputError(f"a text prompt is empty: {text[:50]!r}")
    return found


def reworded(text: str, words: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A text in which words before a noun stand for others, which are in lower case, and what was read as what.

    A lightness that is said goes before that of what a colour is read as. One of a thing is a thing, and nothing to tell.

    >>> reworded("an indigo fish and a light navy car in the navy", {"navy": "dark blue", "indigo": "dark purple"})
    ('a dark purple fish and a light blue car in the navy', {'an indigo': 'a dark purple', 'a light navy': 'a light blue'})
    >>> reworded("the car is navy", {"navy": "dark blue"})
    ('the car is dark blue', {'navy': 'dark blue'})
    """
    if not words:
        return text, {}
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    found = {}

    def read(said: re.Match[str]) -> str:
        article, lightness, word = said.groups()
        meant = words[word.lower()]
        if lightness:
            meant = f"{lightness.lower()} {meant.removeprefix('dark ').removeprefix('light ')}"
        found[said[0]] = with_article(meant) if article else meant
        return found[said[0]]

    starts = r"(?:^|(?<=[,&] )|(?<=\band )|(?<=\bwith )|(?<=\bof ))"  # not in "formula one car"
    one = rf"{starts}(?:one|1) (?!{NO_NOUN}|o.?clock|thirty|hundred|thousand)(?=([^\W\d_]))"
    text = re.sub(one, lambda found: "an " if found[1].lower() in "aeiou" else "a ", text, flags=re.I)
    last = r"(?<=\bis )|(?<=\bare )|(?<=\bin )"
    word = rf"(?:(dark|light) )?({longest_first})"
    before_noun = rf"\b(?:(an?) )?{word}(?= (?!{NO_NOUN})[^\W\d_])"
    text = re.sub(before_noun, read, text, flags=re.I)
    return re.sub(rf"(?:{last})()\b{word}(?=\W*$)", read, text, flags=re.I), found


def visible(text: str, at: int) -> bool:
    """Whether a character counts: not a format character, nor a joiner beside ASCII."""
    character = text[at]
    if character in JOINERS:
        return 0 < at < len(text) - 1 and not text[at - 1].isascii() and not text[at + 1].isascii()
    return unicodedata.category(character) not in ("Cf", "Cn", "Co")


def tell_unread(tokenizer: Any, text: str, limit: int, unknown: str = "[UNK]") -> None:
    """Notes of what a tokenizer cuts off, and of the words that its encoder can hardly know.

    Those are words without a token, or with none but crumbs: pieces of `CRUMB` characters or fewer, as a language gets that
    was not in the training text.

    Args:
        tokenizer: of the tokenizers library, with truncation on.
        limit: tokens that are read, the special ones included.
    """
    encoded = tokenizer.encode(text)
    spans = {word: encoded.word_to_chars(word) for word in dict.fromkeys(encoded.word_ids) if word is not None}
    if encoded.overflowing:
        tell_truncated(text[max((end for _, end in spans.values()), default=0) :], limit)
    strange = []
    for word, (start, end) in spans.items():
        pieces = encoded.tokens[slice(*encoded.word_to_tokens(word))]
        if unknown in pieces or (len(pieces) > 1 and end - start <= CRUMB * len(pieces)):
            strange.append(text[start:end])
    tell_strange(strange)


def tell_cut(encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str], text: str, limit: int) -> None:
    """The same of a tokenizer that is known by its functions alone and has a token for every byte, such as CLIP's.

    Args:
        encode: text to ids without special tokens, of which `limit - 2` are read. decode: ids to text.
        limit: tokens that are read, the two special ones included.
    """
    ids = encode(text)
    if len(ids) > limit - 2:
        tell_truncated(decode(ids[limit - 2 :]), limit)
    pieces = {word: len(encode(word)) for word in text.split()}
    tell_strange([word for word, count in pieces.items() if count > 1 and len(word) <= CRUMB * count])


def tell_weights(text: str) -> None:
    """A note of what looks like the weight of some words in a text, as in (red car:1.3)."""
    if found := re.search(r"\([^()]+:\s*\d*\.?\d+\)|\({2}[^()]+\){2}", text):
        tell("weights in words", what=found[0])


def tell_strange(words: Sequence[str]) -> None:
    strange = list(dict.fromkeys(word.strip() for word in words))
    if strange:
        more = f" and {len(strange) - MOST_WORDS} more" if len(strange) > MOST_WORDS else ""
        tell("unknown words", words=", ".join(f'"{w}"' for w in strange[:MOST_WORDS]) + more)


def tell_truncated(rest: str, limit: int) -> None:
    rest = rest.strip()
    if rest:
        shown = rest if len(rest) <= MOST_QUOTED else f"{rest[: MOST_QUOTED - 3]}..."
        tell("truncated", limit=limit, rest=f'"{shown}"')
