"""The page on a host: who may use it, where a proxy shows it, its health, its access log, and the files of the guide."""

import asyncio
import json
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import said
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.demo import request_filter
from unialign_gen.demo.limits import Limits

HOSTING = Path(__file__).resolve().parent.parent / "docs" / "hosting"


def test_health_says_what_the_engine_does(served):
    served.context.engine.pipeline(next(iter(served.context.engine.models)))
    answer = httpx.get(f"{served.url}health", timeout=60)
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert set(answer.json()) == {"status", "jobs", "waiting", "drawn", "batches"}


def ask(guard, path, method="POST", headers=(), root_path="", client="a"):
    """One request through the filter: its status."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"username=a&password=b", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers), "client": (client, 1)}
    asyncio.run(guard({**scope, "root_path": root_path}, receive, send))
    return sent[0]["status"]


async def fine(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"12345"})


def test_login_is_open_where_there_is_one_and_counts_attempts(tmp_path):
    limits = Limits(logins_a_minute=2)
    assert ask(request_filter.RequestFilter(fine, limits, tmp_path), "/login") == 404
    guard = request_filter.RequestFilter(fine, limits, tmp_path, login=True)
    assert [ask(guard, "/login"), ask(guard, "/login/"), ask(guard, "/login")] == [200, 200, 429]
    assert ask(guard, "/login", client="b") == 200
    assert ask(guard, "/logout", "GET") == 200
    assert ask(guard, "/login", headers=[(b"content-length", b"999999")]) in (413, 429)


def test_routes_below_a_root_path_are_the_same(tmp_path):
    guard = request_filter.RequestFilter(fine, Limits(), tmp_path)
    assert ask(guard, "/draw/config", "GET", root_path="/draw") == 200
    assert ask(guard, "/draw/monitoring", "GET", root_path="/draw") == 404
    assert ask(guard, "/draw/health", "GET", root_path="/draw") == 200
    guard.health = lambda: {"status": "loading"}
    assert ask(guard, "/health", "GET") == 503


def test_the_access_log_has_a_line_for_every_request(tmp_path, caplog):
    guard = request_filter.RequestFilter(fine, Limits(), tmp_path)
    with caplog.at_level("INFO", "unialign_gen.access"):
        ask(guard, "/config", "GET")
        ask(guard, "/x\n1.2.3.4 GET /forged", "GET")
        ask(guard, "/health", "GET")
    first, second = (record.getMessage() for record in caplog.records)  # who only asks for the health is not noted
    assert re.fullmatch(r"a GET /config 200 5 \d\.\d{3}", first)
    assert second.startswith("a GET /x%0A1.2.3.4%20GET%20/forged 404 ")


@pytest.fixture(scope="module")
def guarded(served, tmp_path_factory):
    """A page behind a password and below a path; it draws with the engine of the other page, so that nothing loads again."""
    from unialign_gen.demo.server import log_access, open_page

    log = tmp_path_factory.mktemp("log") / "access.log"
    with ExitStack() as closing:
        log_access(str(log), closing)
        page = open_page(served.context, auth=[("ada", "x:y")], root_path="/draw", server_name=None, server_port=None)
        closing.callback(page.page.close, verbose=False)
        yield page, log


def test_who_has_no_password_gets_nothing(guarded):
    page, log = guarded
    url = page.url.removesuffix("/").removesuffix("/draw")
    assert httpx.post(f"{url}/gradio_api/call/create", json={"data": []}, timeout=60).status_code == 401
    assert httpx.post(f"{url}/login", data={"username": "ada", "password": "no"}, timeout=60).status_code == 400
    session = httpx.Client(timeout=60)
    assert session.post(f"{url}/login", data={"username": "ada", "password": "x:y"}).status_code == 200
    config = session.get(f"{url}/config").json()
    assert config["root"].endswith("/draw")
    posts = [line.split()[3:6] for line in log.read_text().splitlines() if " POST " in line]
    assert posts[:2] == [
        ["POST", "/gradio_api/call/create", "401"],
        ["POST", "/login", "400"],
    ]
    assert "x:y" not in log.read_text()


def test_who_has_it_draws(guarded, tmp_path):
    """Straight at the server's port, as a proxy that takes the path away does."""
    page, _ = guarded
    url = page.url.removesuffix("/").removesuffix("/draw")
    session = httpx.Client(base_url=url, timeout=60)
    session.post("/login", data={"username": "ada", "password": "x:y"})
    event = session.post("/gradio_api/call/models", json={"data": []}).json()["event_id"]
    assert '"starter"' in session.get(f"/gradio_api/call/models/{event}").text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--auth", "ada"], "--auth: write USER:PASSWORD"),
        (["--auth", "ada:", "--auth", "b:c"], "--auth: write USER:PASSWORD"),
        (["--auth", "ada:secret", "--auth", "ada:other"], "each user once"),
        (["--access-log", "/nowhere/access.log"], "--access-log /nowhere/access.log: No such file"),
    ],
)
def test_mistakes_of_the_options(options, words):
    result = CliRunner().invoke(app, ["demo", *options])
    assert result.exit_code == 2
    assert words in result.stderr
    assert "secret" not in result.stderr
    assert len(said(result.stderr)) == 1


def test_the_guide_s_container_starts_the_page_with_options_that_exist(monkeypatch):
    """The container itself is not built here: its command, its compose file and its proxy are read, and the command is run."""
    asked = {}
    monkeypatch.setattr("unialign_gen.demo.server.serve", lambda **options: asked.update(options))
    docker = (HOSTING / "Dockerfile").read_text()
    command = json.loads(re.search(r"^CMD (\[.*\])$", docker, re.M)[1])
    assert command[0] == "unialign-gen"
    compose = yaml.safe_load((HOSTING / "compose.yaml").read_text())
    page, proxy = compose["services"]["page"], compose["services"]["proxy"]
    monkeypatch.setenv("UNIALIGN_GEN_AUTH", "ada:one bob:two")
    result = CliRunner().invoke(app, [*command[1:], *shlex.split(page.get("command", ""))])
    assert result.exit_code == 0, result.stderr
    assert asked["host"] == "0.0.0.0"
    assert asked["auth"] == [("ada", "one"), ("bob", "two")]
    assert asked["access_log"] == "-"
    port = asked["port"]
    assert f":{port}/health" in " ".join(page["healthcheck"]["test"])
    assert "UNIALIGN_GEN_AUTH" in page["environment"]
    conf = (HOSTING / "Caddyfile").read_text()
    assert f"page:{port}" in conf
    assert "/etc/caddy/Caddyfile" in proxy["volumes"][0]
    assert f"EXPOSE {port}" in docker


def test_the_guide_names_every_option(served):
    text = (HOSTING.parent / "hosting.md").read_text()
    for option in ("--auth", "--root-path", "--access-log", "--batch", "/health", "FORWARDED_ALLOW_IPS", "UNIALIGN_GEN_AUTH"):
        assert option in text
    assert f"{Limits().together} pictures" in text
    assert f"{Limits().logins_a_minute} attempts" in text


def test_the_guide_s_example_draws_for_several_users():
    text = (HOSTING.parent / "hosting.md").read_text()
    found = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], found)
    assert len(found["pictures"]) == 4
