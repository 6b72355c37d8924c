"""What becomes of a text before an encoder reads it, and what is said of the rest."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unialign_gen.errors import InputError
from unialign_gen.media.text import clean_text, reworded
from unialign_gen.notes import collected


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a \t red\n car ", "a red car"),
        ("\uff41\u3000\uff44\uff4f\uff47", "a dog"),
        ("\ufb01re \u2460", "fire 1"),
        ("cafe\u0301", "café"),
        ("a\u200bd\u00ado\ufeffg", "adog"),
        ("\u202edog\u202c", "dog"),
        ("d\u200dog", "dog"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\u06cc\u200c\u062e", "\u06cc\u200c\u062e"),
        ("a\x00dog\x07", "a dog"),
        ("\U000e0041dog", "dog"),
    ],
)
def test_what_becomes_of_a_text(text, clean):
    assert clean_text(text) == clean


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "\ufeff\u200d", "\x00", "\u00ad"])
def test_nothing_is_left(text):
    with pytest.raises(InputError, match="empty"):
        clean_text(text)


@pytest.mark.parametrize("text", ["a \ud83d dog", "\udc80", "\ude00\ud83d"])
def test_half_a_character_is_one_line(text):
    with pytest.raises(InputError, match="lone surrogate") as caught:
        clean_text(text)
    str(caught.value).encode()  # the message itself can be shown


@pytest.mark.parametrize("text", [None, 3, b"dog", ["dog"]])
def test_what_is_no_text(text):
    with pytest.raises(InputError, match="must be a text"):
        clean_text(text)


@given(st.text())
def test_any_text(text):
    try:
        found = clean_text(text)
    except InputError:
        return
    assert clean_text(found) == found
    assert unicodedata.is_normalized("NFKC", found)
    assert not set(map(unicodedata.category, found.replace("\u200d", "").replace("\u200c", ""))) & {"Cc", "Cf", "Cs"}


def said(starter, text):
    with collected() as notes:
        starter.aligner.embed("text", [text])
    return {n.kind: n.text for n in notes}


@pytest.mark.parametrize("word", ["猫", "🐱", "xxxx", "кошка", "ねこ", "qwrtzp"])
def test_words_that_the_encoder_has_none_for_are_named(starter, word):
    assert word in said(starter, f"a photo of {word} in the rain")["unknown words"]


@pytest.mark.parametrize(
    "text", ["a barking dog", "Thunder, rain and wind!", "2 cats & a kitten's toy", "ﬁre", "the xylophone player's guitar"]
)
def test_plain_words_are_not_named(starter, text):
    assert said(starter, text) == {}


def test_many_unknown_words_are_counted(starter):
    line = said(starter, " ".join("猫鳥魚牛虎猿蝶鯨"))["unknown words"]
    assert line.count('"') == 10
    assert "more" in line


def test_what_is_cut_off_is_told(starter):
    line = said(starter, "dog " * 126 + "a red car")["truncated"]
    assert line.endswith('not read is "a red car"')
    assert "128 tokens" in line
    assert "truncated" not in said(starter, "dog " * 126)


def test_of_clip_too():
    pytest.importorskip("open_clip")
    import open_clip

    from unialign_gen.media.text import tell_cut

    tokenizer = open_clip.get_tokenizer("ViT-B-32")

    def tell_unread(tokenizer, text, limit):
        tell_cut(tokenizer.encode, tokenizer.decode, text, limit)

    with collected() as notes:
        tell_unread(tokenizer, "dog " * 75 + "a red car", 77)
    assert [(n.kind, n.text.rpartition("not read is ")[2]) for n in notes] == [("truncated", '"a red car"')]
    with collected() as notes:
        tell_unread(tokenizer, "a barking dog in the snow", 77)
    assert notes == []
    with collected() as notes:
        tell_unread(tokenizer, "a photo of 𓃠", 77)
    assert [n.kind for n in notes] == ["unknown words"]


WORDS = {"navy": "dark blue", "navy blue": "dark blue", "gold": "yellow", "tan": "brown", "off-white": "white"}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a navy car", "a dark blue car"),
        ("A Navy Blue car", "a dark blue car"),
        ("a light navy car", "a light blue car"),
        ("a dark gold ring", "a dark yellow ring"),
        ("an off-white cat", "a white cat"),
        ("two tan dogs and a gold crown", "two brown dogs and a yellow crown"),
        ("a titanic tan", "a titanic tan"),
        ("the navy", "the navy"),
        ("a navy and a car", "a navy and a car"),  # a thing
        ("navy on a car", "navy on a car"),
        ("a tan, a car", "a tan, a car"),
        ("one dog and 1 apple", "a dog and an apple"),
        ("One of us, number one", "One of us, number one"),
        ("11 dogs", "11 dogs"),
        ("formula one car, one car", "formula one car, a car"),
        ("one o\u2019clock, one thirty", "one o\u2019clock, one thirty"),
    ],
)
def test_words_before_a_noun_are_read_as_others(text, read):
    assert reworded(text, WORDS)[0] == read
    assert reworded(text, {}) == (text, {})
