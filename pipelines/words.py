"""The English words by which the parts of a text are told."""

from __future__ import annotations

import re
from collections.abc import Sequence

BESIDE = ("and", "&", "beside", "next to", "near")
ABOVE = ("above", "over", "on top of")
BELOW = ("below", "beneath", "underneath", "under")
AROUND = ("on", "in", "inside", "into", "at", "with", "behind", "through", "across", "among")
OF = ("made of", "built of", "full of", "out of")  # but not "a picture of"
DETERMINERS = {"a", "an", "the", "one", "two", "three", "four", "some"}
FUNCTION_WORDS = DETERMINERS | set(" ".join((*AROUND, *BESIDE, *ABOVE, *BELOW, *OF)).split())
FUNCTION_WORDS |= {"or", "to", "for", "from", "by", "is", "are", "was", "were", "has", "have"}
STANDING = {*AROUND, *ABOVE, *BELOW, *BESIDE} - {"and", "&"}
NO_VERBS = {"building", "ceiling", "clothing", "earring", "painting", "pudding", "spring", "string", "wedding"}


def is_doing(word: str) -> bool:
    """Whether a word says what somebody does."""
    return re.fullmatch(r"\w{3,}ing", word) is not None and word not in NO_VERBS


def thing_ends(words: Sequence[str]) -> int:
    """How many of a text's words, in lower case, name its thing; the others say where it is, what is with it or what it does.

    >>> [thing_ends(text.split()) for text in ("a big car", "a cat with green eyes", "a flying dragon", "a girl holding a cup")]
    [3, 2, 3, 2]
    """
    for n, word in enumerate(words):
        doing = is_doing(word) and words[n + 1 : n + 2] and words[n + 1] in DETERMINERS
        if (word in STANDING or doing) and not DETERMINERS.issuperset(words[:n]):
            return n
    return len(words)
