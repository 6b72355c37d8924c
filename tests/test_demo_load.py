"""Short versions of `benchmarks/demo_load.py`: clients side by side, and requests as no page would send them."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "demo_load.py"


@pytest.fixture(scope="module")
def demo_load():
    spec = importlib.util.spec_from_file_location("demo_load", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_load"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo_load"]


@pytest.fixture(scope="module")
def server(served, demo_load):
    """The page of the tests, with the face of a server in another process."""
    return SimpleNamespace(url=served.url, process=SimpleNamespace(poll=lambda: None), megabytes=lambda: 0.0)


def test_every_answer_belongs_to_its_request(demo_load, server, monkeypatch):
    monkeypatch.setattr(demo_load, "TEXTS", ("a cat",))
    monkeypatch.setattr(demo_load, "SOUNDS", (None, "chicken.flac"))
    found = demo_load.load(server, clients=4, seconds=1)
    assert found["failures"] == 0, found["first_failures"]
    assert found["answers"] >= 4


def test_the_engine_s_batches_give_what_each_request_gives_alone(demo_load, starter, monkeypatch):
    monkeypatch.setattr(demo_load.unialign_gen, "load", lambda name: starter)
    found = demo_load.engine(4, users=2, steps=1)
    assert found["largest_difference"] <= 1
    assert found["one_at_a_time"]["mean_batch"] == 1 < found["batched"]["mean_batch"]
    assert set(found["batched"]) == {"seconds", "a_second", "core_seconds_each", "mean_batch", "p50", "p90", "p99"}


def test_another_s_answer_would_be_noticed(demo_load, served, tmp_path):
    from gradio_client import Client

    client = Client(served.url, verbose=False, download_files=str(tmp_path))
    a, b = (demo_load.Request("a cat", None, seed).ask(client) for seed in (0, 1))
    assert demo_load.same(a, a)
    assert not demo_load.same(a, b)
    answer = client.predict(text="a cat", seed=1, steps=2, api_name="/create")
    with pytest.raises(AssertionError, match="asked for"):
        demo_load.Request("a cat", None, 0).ask(SimpleNamespace(predict=lambda **_: answer))


def test_an_attacker_that_changes_nothing_is_drawn_for(demo_load, server):
    """Else the attacks would end at Gradio's own checks, before ours."""
    assert "event: complete" in demo_load.Attacker(server.url, 0).create()


def test_hostile_requests_leak_nothing_and_stop_nothing(demo_load, server):
    found = demo_load.hostile(server, 40)
    assert found["leaks"] == 0, found["first_leaks"]
    assert found["alive"]
    assert found["draws_as_before"]


@pytest.mark.parametrize("text", ["Traceback (most recent call last)", f"{PATH}", 'File "x.py", line 3', "root:x:0:0"])
def test_a_leak_would_be_noticed(demo_load, text):
    assert demo_load.LEAKS.search(text)
