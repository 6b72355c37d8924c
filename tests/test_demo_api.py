"""The endpoints, through Gradio's client, and what a stranger's request can and cannot do."""

import json
import re
from io import BytesIO
from pathlib import Path

import av
import httpx
import numpy as np
import processes
import pytest
from conftest import said, tone, write_wav
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.demo.limits import Limits
from unialign_gen.loading import shipped_folder
from unialign_gen.request.picture_settings import read_picture
from unialign_gen.request.request import read_vector

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = shipped_folder() / "samples"


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    return Client(served.url, verbose=False, download_files=str(tmp_path_factory.mktemp("client")))


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_every_action_is_a_named_endpoint(client):
    found = client.view_api(return_format="dict", print_info=False)
    assert set(found["named_endpoints"]) == {
        *("/create", "/travel", "/animate", "/place", "/models", "/stop"),
        *("/read", "/edit", "/live"),
    }
    assert found["unnamed_endpoints"] == {}


def test_create_answers_with_the_library_s_picture_and_its_settings(client, starter):
    pictures, details, shell, *_ = client.predict(
        text="a robot", audio=handle_file(SAMPLES / "cow.flac"), text_weight=0.6, audio_weight=0.4, seed=5, steps=2, pictures=2,
        api_name="/create",
    )  # fmt: skip
    weights = {"text": 0.6, "audio": 0.4}
    call = {"text": "a robot", "audio": str(SAMPLES / "cow.flac"), "weights": weights, "seed": 5, "num_inference_steps": 2}
    expected = starter(**call, num_images_per_prompt=2).images
    for i, (row, picture) in enumerate(zip(pictures, expected, strict=True)):
        assert same(Image.open(row["image"]), picture)
        request = read_picture(row["image"]).request
        assert (request.seed, request.pictures) == (5 + i, 1)
        assert [(p.kind, p.value, p.weight) for p in request.prompts[0]] == [
            ("text", "a robot", 0.6),
            ("audio", "cow.flac", 0.4),
        ]
    assert details["seeds"] == [5, 6]
    assert details["concepts"][0]["name"] == "robot"
    assert shell.startswith("unialign-gen generate --text 'a robot' --audio cow.flac")


def test_who_does_what_is_drawn_and_nobody_is_said_to_be_missing(client):
    details = client.predict(text="a robot playing a guitar", seed=0, steps=1, api_name="/create")[1]
    assert details["notes"] == []
    assert {"robot", "guitar"} <= {row["name"] for row in details["concepts"][:3]}


def test_the_guides_example_runs(served, monkeypatch, capsys):
    text = (ROOT / "docs" / "demo.md").read_text()
    example = re.search(r"```python\n(from gradio_client.*?)```", text, re.S)[1]
    assert "http://127.0.0.1:7860/" in example
    monkeypatch.chdir(ROOT)
    exec(example.replace("http://127.0.0.1:7860/", served.url), {})
    assert "robot unialign-gen generate --text 'a robot' --audio cow.flac" in capsys.readouterr().out


def test_the_guide_states_the_limits_and_the_endpoints(client):
    text, limits = (ROOT / "docs" / "demo.md").read_text(), Limits()
    assert f"the queue holds {limits.waiting}" in text
    assert f"{limits.requests_a_minute:,} requests a minute" in text
    assert f"{limits.file_bytes // 10**6} MB" in text
    assert f"{limits.pixels // 10**6} megapixels" in " ".join(text.split())
    assert f"a film {limits.film_seconds:.0f} s" in text
    assert f"{limits.decode_seconds:.0f} s and {limits.decode_bytes / 1e9:.1f} GB" in text
    for endpoint in client.view_api(return_format="dict", print_info=False)["named_endpoints"]:
        assert f"`{endpoint}`" in text


def settings_in(client, picture):
    """How a picture was drawn, as parameters of `/create`."""
    *_, settings, _ = client.predict(handle_file(picture), api_name="/read")
    return settings


def test_the_settings_in_a_picture_draw_it_again(client):
    asked = {"text": "a tree", "text_weight": -0.5, "seed": 9, "steps": 2, "mix": "slerp", "prior_strength": 0.2}
    pictures, *_ = client.predict(**asked, api_name="/create")
    settings = settings_in(client, pictures[0]["image"])
    assert settings.pop("said").endswith("are back.")
    assert settings["kept"] == [{"kind": "text", "value": "a tree", "weight": -0.5}]
    assert {name: settings[name] for name in ("mix", "seed", "steps", "prior_strength")} == {
        **{name: asked[name] for name in ("seed", "steps", "prior_strength")},
        "mix": "lerp",
    }
    again, *_ = client.predict(**settings, api_name="/create")
    assert same(Image.open(again[0]["image"]), Image.open(pictures[0]["image"]))


def test_settings_leave_nothing_behind_that_a_call_does_not_name(client):
    asked = {"audio": handle_file(SAMPLES / "cow.flac"), "seed": 1, "steps": 1}
    pictures, *_ = client.predict(**asked, api_name="/create")
    kept = settings_in(client, pictures[0]["image"])["kept"]
    assert [(p["kind"], p["value"]) for p in kept] == [("audio", "cow.flac")]
    _, details, *_ = client.predict(text="a tree", steps=1, api_name="/create")
    assert [p["kind"] for p in details["prompts"]] == ["text"]
    _, details, *_ = client.predict(text="a tree", steps=1, kept=kept, api_name="/create")
    assert [p["kind"] for p in details["prompts"]] == ["text", "audio"]
    with pytest.raises(AppError, match="kept of a picture cannot be used"):
        client.predict(text="a tree", kept=[{"kind": "audio", "value": "/etc/passwd"}, 3], api_name="/create")


@pytest.mark.parametrize("name", ["after.png", "re_zitxt.png"])
def test_pictures_that_an_optimiser_had_are_restored(client, name):
    assert settings_in(client, Path(__file__).parent / "media" / name)["kept"]


def test_what_was_lost_reaches_the_page_and_programs(client, tmp_path):
    silent = write_wav(tmp_path / "silent.wav", 0 * tone(1, 16000), 16000)
    _, details, *_, understood, _ = client.predict(text="a \u732b", audio=handle_file(silent), steps=1, api_name="/create")
    assert [n["kind"] for n in details["notes"]] == ["silent", "unknown words", "not understood"]
    assert "silent.wav is silent" in understood


def test_travel_exports_a_gif_and_a_film(client, starter):
    sheep, *_ = client.predict(handle_file(SAMPLES / "sheep.mp4"), api_name="/read")
    kept = [{"kind": "text", "value": "a cat"}, sheep]
    _, files, _ = client.predict(kept=kept, between=3, steps=1, api_name="/travel")
    with Image.open(files[0]) as gif:
        assert gif.n_frames == 6  # 4 pictures, there and back
    with av.open(files[2]) as film:
        assert film.streams.video[0].codec_context.name == "vp8"
    with av.open(files[1]) as film:
        frames = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
    assert len(frames) == 4
    first = starter(text="a cat", seed=0, num_inference_steps=1).images[0].resize((384, 384), Image.Resampling.LANCZOS)
    assert np.abs(frames[0].astype(int) - np.asarray(first).astype(int)).mean() < 6


def test_animate_makes_a_film_with_the_sound(client):
    film, *_ = client.predict(sound=handle_file(SAMPLES / "chicken.flac"), pictures=2, steps=1, api_name="/animate")
    path = film["video"] if isinstance(film, dict) else film
    with av.open(path) as container:
        assert {s.type for s in container.streams} == {"video", "audio"}
        assert container.duration / 1e6 == pytest.approx(0.77, abs=0.15)


def test_place_says_what_a_prompt_is_near_to(client):
    details, *_ = client.predict(text="a puppy", api_name="/place")
    assert details["concepts"][0]["name"] == "dog"
    assert all(0 <= v <= 1 for v in details["place"])


def test_models_and_stop(client):
    assert client.predict(api_name="/models")[0] == "starter"
    assert client.predict(api_name="/stop") == 0


def test_a_job_is_stopped_from_its_own_client_only(client, served):
    other = Client(served.url, verbose=False)
    job = client.submit(text="a cat", steps=50, pictures=8, api_name="/create")
    while not any("drawing" in str(o) for o in job.outputs()):
        assert not job.done()
    assert other.predict(api_name="/stop") == 0
    assert client.predict(api_name="/stop") == 1
    with pytest.raises(AppError, match="stopped"):
        job.result(timeout=30)


@pytest.mark.parametrize(
    ("api", "given", "words"),
    [
        ("/create", {}, "nothing to draw"),
        ("/create", {"text": "x" * 501}, "at most 500"),
        ("/create", {"text": "a", "image": "cow.flac"}, "cow.flac is not a picture"),
        ("/create", {"text": "a", "audio": "README.md"}, "README.md is not a sound"),
        ("/create", {"text": "a", "steps": 51}, "50"),
        ("/edit", {"text": "a"}, "nothing to edit"),
        ("/read", {}, "nothing to read"),
        ("/live", {"samples": "?"}, "16-bit"),
        ("/read", {"file": "cow.flac", "kind": "image"}, "cow.flac cannot be read|cow.flac is not a picture"),
        ("/travel", {"text": "a cat"}, "two stops"),
        ("/animate", {}, "nothing to play"),
        ("/place", {}, "nothing to place"),
    ],
)
def test_mistakes_are_one_line(client, api, given, words):
    given = {k: handle_file(SAMPLES / v) if k in ("image", "audio", "file") else v for k, v in given.items()}
    with pytest.raises(AppError, match=words) as caught:
        client.predict(**given, api_name=api)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert not re.search(r"/tmp|/root|/home|site-packages|Traceback", said)


def call(url, api, data):
    """A raw request: the status and all of the answer."""
    answer = httpx.post(f"{url}gradio_api/call/{api}", json={"data": data}, timeout=60)
    if answer.status_code != 200:
        return answer.status_code, answer.text
    return 200, httpx.get(f"{url}gradio_api/call/{api}/{answer.json()['event_id']}", timeout=60).text


def file_data(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../../../etc/passwd", str(ROOT / "README.md"), "/proc/self/environ", "http://127.0.0.1:1/x", "file:///etc/passwd",
     "a\0b"],
)  # fmt: skip
def test_no_file_of_the_server_is_read(served, path):
    for value in (file_data(path), {"path": path}, path):
        status, said = call(served.url, "read", [value, "any", 0.3, "", None, 0, None, None, None, ""])
        assert status == 400 or "event: error" in said
        assert str(ROOT) not in said
        assert "root:" not in said
    for route in (f"file={path}", f"file/{path}", f"proxy={path}", f"stream/{path}"):
        answer = httpx.get(f"{served.url}gradio_api/{route.replace(chr(0), '%00')}", timeout=60)
        assert answer.status_code in (400, 403, 404)


def test_routes_that_the_page_does_not_need_are_closed(served):
    for route in (
        "monitoring",
        "gradio_api/component_server",
        "gradio_api/deep_link",
        "docs",
        "openapi.json",
        "login",
        "vibe-edit",
    ):
        assert httpx.get(f"{served.url}{route}").status_code in (404, 405)
        assert httpx.post(f"{served.url}{route}", json={}).status_code in (404, 405)


def test_bodies_are_bounded(served):
    assert httpx.post(f"{served.url}gradio_api/call/create", content=b"x" * 300_000).status_code == 413
    stream = (b"x" * 65536 for _ in range(10))
    assert httpx.post(f"{served.url}gradio_api/call/create", content=stream).status_code == 413
    assert httpx.post(f"{served.url}gradio_api/call/create", content=b"[" * 5000).status_code == 422
    for depth in (40, 500, 5000):
        status, said = call(served.url, "create", [[json.loads("[" * 40 + "]" * 40)] * 2])
        assert status != 200 or "event: error" in said
        nested = b'{"kept": ' + b"[" * depth + b"]" * depth + b"}"
        answer = httpx.post(
            f"{served.url}gradio_api/call/v2/create", content=nested, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            found = httpx.get(f"{served.url}gradio_api/call/create/{answer.json()['event_id']}", timeout=60).text
            assert "event: error" in found
            assert "Traceback" not in found
    too_large = {"files": ("a.png", b"x" * (served.context.limits.file_bytes + 1_000_000))}
    assert httpx.post(f"{served.url}gradio_api/upload", files=too_large, timeout=60).status_code == 413


def test_a_page_loads_nothing_from_elsewhere(served):
    answer = httpx.get(served.url)
    assert "default-src 'self'; script-src 'self';" in answer.headers["content-security-policy"]
    assert json.loads(httpx.get(f"{served.url}config").text)["analytics_enabled"] is False
    preview = re.search(r'og:image" content="([^"]+)"', answer.text)[1]
    with Image.open(BytesIO(httpx.get(preview).content)) as card:
        assert card.size == (1200, 630)


def test_a_file_is_read_once_and_drawn_from_its_embedding(client, starter):
    part, concepts, notes, settings, seen = client.predict(handle_file(SAMPLES / "sheep.mp4"), api_name="/read")
    assert (part["kind"], part["value"], notes, settings) == ("video", "sheep.mp4", [], None)
    assert "sheep" in [c["name"] for c in concepts]
    assert "and its sound heard" in seen
    pictures, *_ = client.predict(kept=[{**part, "weight": 0.5}], steps=1, api_name="/create")
    expected = starter(video=str(SAMPLES / "sheep.mp4"), seed=0, num_inference_steps=1).images[0]
    assert same(Image.open(pictures[0]["image"]), expected)
    part, _, notes, *_ = client.predict(handle_file(SAMPLES / "sheep.mp4"), video_sound=0, api_name="/read")
    assert [n["kind"] for n in notes] == ["sound of a video"]
    frames = starter.aligner.embed_video(str(SAMPLES / "sheep.mp4"), sound=0)
    assert np.allclose(read_vector(part["embedding"]), frames.numpy(), atol=1e-5)
    *_, settings, _ = client.predict(handle_file(pictures[0]["image"]), api_name="/read")
    assert [(p["kind"], p["value"], p["weight"]) for p in settings["kept"]] == [("video", "sheep.mp4", 0.5)]


@pytest.mark.parametrize(
    ("option", "words"), [("--checkpoint", "unknown checkpoint"), ("--port", "in use"), ("--dtype", "--dtype")]
)
def test_mistakes_of_the_command(served, option, words):
    value = str(httpx.URL(served.url).port) if option == "--port" else "nope"
    result = CliRunner().invoke(app, ["demo", option, value])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(said(result.stderr)) == 1


def open_and_close():
    from unialign_gen.demo import server

    server.warm = lambda *_: None  # what is drawn for the first visitor has nothing to do with it
    page = server.start(port=processes.free_port())  # that no other page takes as soon as it is free again
    (page.context.folder() / "x").write_bytes(b"x")
    page.close()
    assert not page.context.cache.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.url)


def test_nothing_is_kept_after_the_page_is_closed():
    """In a process of its own: Gradio has one folder of files a process."""
    processes.finish(processes.start(open_and_close))
