"""What made a picture, inside its file: written, read again, and nothing else accepted."""

import base64
import contextlib
import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.notes import collected
from unialign_gen.request import Prompt, Request
from unialign_gen.request.picture_settings import PictureSettings, parse, read_picture, save_picture

PROMPTS = (Prompt("text", "día\n", 0.7), Prompt("audio", "rain.wav", -0.3, tuple(range(4))))
REQUEST = Request((PROMPTS,), "lerp", 0.4, seed=2**60, steps=12, guidance=2.5, height=64, options={"noise_level": 3})
FULL = PictureSettings(REQUEST, "starter", "stable-unclip", "0.1.0")


def vector(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def test_settings_return(tmp_path):
    save_picture(Image.new("RGB", (4, 4), "red"), tmp_path / "a.png", FULL)
    back = read_picture(tmp_path / "a.png")
    assert back == FULL
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.text["unialign_gen"])["seed"] == 2**60
        assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_a_tensor_comes_back_as_its_numbers():
    point = torch.nn.functional.normalize(torch.randn(8), dim=0)
    made = PictureSettings(Request(((Prompt("embeds", point), Prompt("audio", "/home/me/a.wav", 1.0, point)),), seed=1))
    first, second = parse(made.to_json()).request.prompts[0]
    assert np.array_equal(np.float32(first.value), point.numpy())
    assert np.array_equal(np.float32(second.embedding), point.numpy())
    assert second.value == "a.wav"  # no folder of whoever drew it


@pytest.mark.parametrize(
    ("prompts", "checkpoint"),
    [
        (((Prompt("text", "x" * 5000),),), "starter"),
        ((tuple(Prompt("text", "x") for _ in range(17)),), "starter"),
        (((Prompt("text", "x"),),), "/" + "deep/" * 100),
        (((Prompt("audio", "caf\udce9.wav", embedding=(1.0, 0.0)),),), "starter"),  # a name that is not in UTF-8
    ],
)
def test_what_can_be_drawn_is_read_back(tmp_path, prompts, checkpoint):
    with collected() as notes:
        save_picture(Image.new("RGB", (4, 4)), tmp_path / "a.png", PictureSettings(Request(prompts, seed=1), checkpoint))
    assert notes == []
    found = read_picture(tmp_path / "a.png")
    assert found.checkpoint == checkpoint
    assert found.request.prompts[0][0].value == prompts[0][0].name.encode("utf-8", "replace").decode()


def test_settings_that_would_not_be_read_back_are_left_out_and_the_picture_stays(tmp_path):
    with collected() as notes:
        made = PictureSettings(Request(((Prompt("text", "x" * 30_000),),), seed=1))
        save_picture(Image.new("RGB", (4, 4)), tmp_path / "part.png", made, "a.png")
    assert [n.kind for n in notes] == ["settings not kept"]
    assert notes[0].text.startswith("a.png has no settings inside")
    with Image.open(tmp_path / "part.png") as picture:
        assert picture.text == {}


def test_the_first_editions_settings_are_read():
    prompt = {"kind": "audio", "value": "x.wav", "weight": 0.5, "embedding": vector(1, 2)}
    old = {"format": 1, "prompts": [prompt], "mix": "lerp", "seed": 5, "steps": 20, "guidance": 3.0, "pictures": 4, "index": 2}
    found = parse(json.dumps({**old, "checkpoint": "starter", "decoder": "", "version": "0.1.0", "prior_strength": 0.6}))
    prompts = ((Prompt("audio", "x.wav", 0.5, (1.0, 2.0)),),)
    assert found.request == Request(prompts, "lerp", 0.6, seed=7, steps=20, guidance=3.0)
    assert parse(json.dumps(old)).request.prior_strength == 0  # from before there was a prior


def one(**prompt):
    return {"prompts": [[prompt]]}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3}, {"format": None}, {"extra": 1}, {"prompts": []}, {"prompts": "text"}, {"prompts": [FULL.to_json()]},
        {"prompts": [[]]}, one(kind="text", value=""), one(kind="embeds", value="x"), one(kind="audio", value="x"),
        one(kind="audio", value="x", embedding="%%%"), one(kind="audio", value="x", embedding="AAAA"),
        one(kind="audio", value="x", embedding=vector(float("nan"))), one(kind="text", value="x", path="/etc/passwd"),
        one(kind="text", value="x" * 20_001), one(kind="text", value="x", weight=True), one(kind="text", value=["x"]),
        one(kind=["text"], value="x"), one(kind="text", value="x", embedding=vector(1)), {"generator": 1}, {"latents": []},
        {"mix": "add"}, {"mix": ["lerp"]}, {"seed": -1}, {"seed": 2**63}, {"seed": 1.0}, {"seed": True}, {"steps": 0},
        {"steps": 10**6}, {"guidance": "3"}, {"pictures": 0}, {"pictures": "2"}, {"index": 4}, {"options": [1]},
        {"options": {"decoder_prompt": 5}}, {"options": {"zzz": 1}},
        {"checkpoint": None}, {"checkpoint": "x" * 4097}, {"height": 2**30}, {"pictures": 10**8},
        {"decoder": {}}, {"version": 1}, {"image_embeds": [[1.0]]},
        {"prior_strength": -0.1}, {"prior_strength": 1.5}, {"prior_strength": True}, {"callback_on_step_end": "print"},
    ],
)  # fmt: skip
def test_anything_else_is_refused(change):
    with pytest.raises(InputError) as caught:
        parse(json.dumps({**json.loads(FULL.to_json()), **change}))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "[" * 100_000, '{"format": 2}', '{"format": NaN}'])
def test_texts_that_are_no_settings(text):
    with pytest.raises(InputError):
        parse(text)


def test_pictures_without_settings(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name, line in (("plain.png", "holds no settings"), ("broken.png", "cannot be read")):
        with pytest.raises(InputError, match=line) as caught:
            read_picture(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_never_does_more_than_complain(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("png") / "a.png"
    save_picture(Image.new("RGB", (4, 4), "red"), path, FULL)
    raw = bytearray(path.read_bytes())
    for at, value in changes:
        raw[at % len(raw)] = value
    path.write_bytes(raw)
    with contextlib.suppress(InputError):
        assert read_picture(path) == FULL  # the change was elsewhere: the checksum covers the settings
