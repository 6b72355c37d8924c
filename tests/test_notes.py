"""Notes reach every collector that is open, once, and are warnings where there is none."""

import copy
import threading

import pytest
import torch

from unialign_gen.aligner import Embeddings
from unialign_gen.notes import Note, collected, note


def test_a_note_reaches_all_open_collectors_once():
    with collected() as outer:
        note("silent", "a.wav is silent")
        with collected() as inner:
            note("cut", "b.txt was cut off")
            note("cut", "b.txt was cut off")
    assert inner == [Note("cut", "b.txt was cut off")]
    assert outer == [Note("silent", "a.wav is silent"), Note("cut", "b.txt was cut off")]
    assert str(outer[0]) == "silent: a.wav is silent"
    assert outer[0].as_dict() == {"kind": "silent", "text": "a.wav is silent"}


def test_a_note_without_a_collector_is_a_warning():
    with pytest.warns(UserWarning, match=r"a\.wav is silent"):
        note("silent", "a.wav is silent")


def test_a_collector_is_of_its_own_thread_and_ends_with_its_block():
    with collected() as notes:

        def elsewhere():
            with pytest.warns(UserWarning, match="elsewhere"):
                note("x", "elsewhere")

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert notes == []


def test_a_copy_of_embeddings_keeps_their_notes():
    found = Embeddings.of(torch.ones(1, 2), [Note("silent", "a.wav is silent")])
    again = copy.deepcopy(found)
    again.notes.clear()
    assert type(again) is Embeddings
    assert torch.equal(again, found)
    assert again.data_ptr() != found.data_ptr()
    assert len(found.notes) == 1
