"""The page's pieces, without the page: routes between stops, tables, markup that cannot be injected, the gate, restoring."""

import asyncio
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from unialign_gen.concepts import ConceptTable
from unialign_gen.demo import html, request_filter
from unialign_gen.demo.action import Action
from unialign_gen.demo.api import said, uploaded
from unialign_gen.demo.engine import AppContext, Engine, Model, Progress, on_disk
from unialign_gen.demo.film import labels, route
from unialign_gen.demo.limits import Limits
from unialign_gen.demo.page import results
from unialign_gen.demo.read import place, restore
from unialign_gen.errors import InputError
from unialign_gen.notes import Note
from unialign_gen.request import Prompt, Request
from unialign_gen.request.picture_settings import PictureSettings, parse

EVIL = "<img src=x onerror=alert(1)>\"'"


@pytest.mark.parametrize("closed", [False, True])
def test_a_route_passes_every_stop_at_constant_speed(closed):
    stops = list(normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1))
    way = route(stops, 4, closed, "slerp")
    assert len(way) == (12 if closed else 9)
    for i, stop in enumerate(stops):
        torch.testing.assert_close(way[4 * i], stop, atol=1e-6, rtol=0)
    leg = [math.acos(min(1.0, float(way[i] @ way[i + 1]))) for i in range(4)]
    assert np.allclose(leg, math.acos(float(stops[0] @ stops[1])) / 4, atol=1e-3)
    found = labels(["a", "b", "c"], 4, closed)
    assert len(found) == len(way)
    assert (found[0], found[1], found[4], found[8]) == ("a", "a 0.75, b 0.25", "b", "c")
    assert found[-1] == ("c 0.25, a 0.75" if closed else "c")


def test_what_a_user_wrote_is_never_markup():
    part, picture = Prompt("text", EVIL, 1.0), Prompt("image", Image.new("RGB", (4, 4)), label=EVIL)
    for made in (
        html.fragment("note", EVIL),
        html.fragment("read", [Note(EVIL, EVIL)], [(EVIL, 0.5)], picture),
        html.fragment("stage", Progress(1, 2, EVIL)),
        html.fragment("understood", [(EVIL, 0.5)], [(part, [(EVIL, 0.1)])] * 2),
        said(InputError(EVIL)).message,
    ):
        assert "<img src=x" not in made


def test_a_wave_covers_the_whole_sound():
    samples = torch.cat([torch.zeros(1000), torch.ones(1000)])
    made = html.wave(samples, columns=10)
    assert made.count("M") == 10
    assert html.wave(torch.zeros(0)) == ""


def test_errors_are_one_line_without_places():
    assert said(InputError("no aligner in /srv/secret/place:\n gone")).message == "no aligner in place: gone"
    assert said(InputError("text and/or a file")).message == "text and/or a file"
    assert "secret" not in said(RuntimeError("/srv/secret")).message


def test_the_shipped_results_become_charts():
    found = results()
    assert {title.partition(":")[0] for title, _ in found} == {"Generation", "Retrieval", "Gap"}
    assert len({title for title, _ in found}) == len(found)
    bars = [bar for _, charts in found for chart in charts for bar in chart["bars"]]
    assert all(0 <= bar["low"] <= bar["value"] <= bar["high"] <= 1 for bar in bars)
    assert results("nothing") == []


def test_a_map_marks_where_a_prompt_lies():
    table = ConceptTable(["cat", "<b>"], torch.eye(2), places=torch.tensor([[0.0, 0.0], [1.0, 0.5]]))
    spot, near = place(table, torch.tensor([0.0, 1.0]))
    assert near[0] == 1
    assert spot == pytest.approx([1, 0.5], abs=1e-3)
    made = html.fragment("map", table, spot, [1], EVIL)
    assert 'data-draw="cat"' in made
    assert made.count("<line") == 1
    assert "<b>" not in made
    assert "<img" not in made


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        ("/", True), ("/page/page.js", True),
        ("/gradio_api/queue/join", True), ("/gradio_api/file=/tmp/x.png", True), ("/assets/a.js", True),
        ("/gradio_api/file=http://x", False), ("/gradio_api/file=/https://x", False), ("/gradio_api/proxy=http://x", False),
        ("/gradio_api/component_server", False), ("/gradio_api/vibe-edit", False), ("/monitoring", False), ("/docs", False),
    ],
)  # fmt: skip
def test_routes(path, is_open):
    assert request_filter.allowed(path) is is_open


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "http://x/a.png",
        "HTTPS://x",
        "a\0b",
        "../../etc/passwd",
        "up/../../x",
        "",
        ["x"],
        3,
        None,
        "/uploads-of-another/x",
    ],
)
def test_nothing_but_an_upload_is_a_file(value, monkeypatch):
    monkeypatch.setattr("unialign_gen.demo.api.get_upload_folder", lambda: "/uploads")
    assert uploaded({"path": "/uploads/a/b.png", "meta": {"_type": "gradio.FileData"}}) == "/uploads/a/b.png"
    assert uploaded(None) is None
    for payload in ({"path": value}, {"path": value, "url": "/uploads/x"}, value or "x", [{"path": value}]):
        with pytest.raises(InputError, match="must be uploaded first"):
            uploaded(payload)


def test_an_address_has_a_bucket_of_requests(tmp_path):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = request_filter.RequestFilter(app, Limits(requests_a_minute=3), tmp_path)

    def ask(address, method="POST", path="/gradio_api/cancel"):
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "path": path, "method": method, "headers": [], "client": (address, 1)}
        asyncio.run(guard(scope, receive, send))
        return sent[0]["status"]

    assert [ask("a") for _ in range(4)] == [200, 200, 200, 429]
    assert ask("b") == 200
    assert ask("a", "GET", "/") == 200
    (tmp_path / "x").write_bytes(b"x" * 100)
    full = request_filter.RequestFilter(app, Limits(cache_bytes=50), tmp_path)
    assert full.cache_size() == 100


@pytest.fixture(scope="module")
def engine():
    made = Engine(Limits())
    yield made
    made.close()


@pytest.fixture(scope="module")
def context(engine, tmp_path_factory):
    return AppContext(engine, None, engine.limits, tmp_path_factory.mktemp("cache"))


def test_old_folders_are_removed_but_for_what_the_page_opens_on(context):
    made, kept = context.folder(), replace(context, cache=context.cache / "kept").folder()
    for folder in (made, kept):
        (folder / "x").write_bytes(b"x")
    context.folder()
    assert made.exists()
    for folder in (made, kept):
        os.utime(folder, (0, 0))
    context.folder()
    assert (made.exists(), kept.exists()) == (False, True)


def test_more_pictures_than_the_page_draws_restore_the_one_in_the_file(context):
    first_edition = {"format": 1, "prompts": [{"kind": "text", "value": "a", "weight": 0.5}], "mix": "spherical_mean"}
    settings = {**first_edition, "seed": 7, "steps": 10, "guidance": 3, "pictures": 100, "index": 42, "checkpoint": "starter"}
    back = restore(parse(json.dumps(settings)), context, "x.png")
    assert (back["seed"], back["mix"], back["model"]) == (49, "spherical_mean", "starter")
    assert back["kept"] == [{"kind": "text", "value": "a", "weight": 0.5}]
    second = restore(PictureSettings(Request(((Prompt("text", "a"),),)), decoder="stable-unclip"), context, "x.png")
    assert second["model"] == "starter, stable-unclip decoder"
    named = restore(PictureSettings(Request(((Prompt("text", "a"),),)), decoder="kandinsky"), context, "x.png")
    assert named["model"] == "starter"
    assert named["said"] == "Settings of x.png are back. It names no seed: the same settings draw another."


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompts": ((Prompt("text", "a"),), (Prompt("text", "b"),))}, "in a way that this page cannot"),
        ({"prompts": ((Prompt("text", "a", 9.0),),)}, "weight of text in x.png"),
        ({"steps": 999}, "steps"),
        ({"checkpoint": "elsewhere"}, "not here"),
        ({"seed": 2**40}, "seed"),
        ({"height": 256, "width": 512}, "a size of 512 x 256, which this page does not know"),
        ({"options": {"decoder_prompt": "a"}}, "decoder_prompt, which this page does not know"),
    ],
)
def test_settings_that_the_page_cannot_draw(context, changed, words):
    checkpoint = changed.pop("checkpoint", "starter")
    request = Request(**{"prompts": ((Prompt("text", "a"),),), **changed})
    with pytest.raises(InputError, match=words):
        restore(PictureSettings(request, checkpoint), context, "x.png")


def test_a_checkpoint_that_is_asked_for_comes_first():
    from unialign_gen.loading import find

    folder = str(find("starter"))
    assert on_disk(folder)[:2] == [Model.of("starter, from a folder", folder), Model.of("starter", "starter")]
    assert on_disk("starter")[0] == Model.of("starter", "starter")
    with pytest.raises(InputError, match="unknown checkpoint"):
        on_disk("/nowhere")


def numbers(context, model, **asked):
    """Steps, guidance and the prior's strength of a request to this model."""
    context.engine.models[model.label] = model
    try:
        found = Action(model=model.label, **asked).request(context)
    finally:
        del context.engine.models[model.label]
    return found.steps, found.guidance, found.prior_strength


def test_a_model_knows_its_own_steps_and_guidance(starter, context):
    config = dict(starter.config)
    assert (Model.of("starter", "starter").steps, Model.of("starter", "starter").guidance) == (
        config["default_steps"],
        config["default_guidance"],
    )
    published = Model.of("k", "kandinsky")
    assert numbers(context, published)[:2] == (published.steps, published.guidance)
    assert numbers(context, published, steps=3, guidance=0)[:2] == (3, 0.0)
    with pytest.raises(InputError, match="steps must be"):
        numbers(context, published, steps=0)


def test_a_model_knows_its_own_prior(starter, engine, context):
    """A second decoder's lies with the encoders; a model without one draws at 0, whatever a program sends it."""
    from unialign_gen.loading import find

    first, published = Model.of("first", "starter"), Model.of("k", "kandinsky")
    below = Model.of("below", str(find("starter", "stable-unclip")))
    assert first.prior == below.prior == starter.prior.config["strength"]
    assert [numbers(context, first, prior_strength=v)[2] for v in (None, 0.2, 0)] == [first.prior, 0.2, 0]
    assert published.prior is None
    assert [numbers(context, published, prior_strength=v)[2] for v in (None, 0.7)] == [0, 0]
    with pytest.raises(InputError, match="prior strength must be a number from 0 to 1"):
        numbers(context, first, prior_strength=1.5)
    engine.models["bare"] = Model("bare", "bare", None, 12, 3.0)
    request = Request(((Prompt("text", "a"),),), prior_strength=0.7)
    try:
        with pytest.raises(InputError, match="drawn with a prior, which bare has not"):
            restore(PictureSettings(request, "bare"), context, "x.png")
    finally:
        del engine.models["bare"]
