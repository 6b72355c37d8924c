"""The drawing engine and the page under load, and the page under attack.

    python benchmarks/demo_load.py --engine 1000
    python benchmarks/demo_load.py --seconds 120 --clients 16
    python benchmarks/demo_load.py --hostile 1000

Engine: requests of 16 users, drawn one at a time and then in batches of up to 16, without the page; words, sounds, mixes,
seeds and guidance differ. Every picture is compared with the one drawn alone; pictures a second, and seconds from request to
picture. Load: each client of a page draws words, seeds and sounds at random; its answer must carry those settings and be, up to
one grey level, the picture that the same request gave when it was alone. Attack: mutated media, paths and addresses in place of
uploads, sizes and types that no page would send, broken bodies; no answer may show a path of the server or a traceback, and
afterwards the server must draw as before.
"""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product, starmap
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer
from gradio_client import Client, handle_file
from PIL import Image, ImageChops

import unialign_gen
from unialign_gen.loading import shipped_folder
from unialign_gen.request.picture_settings import read_picture
from unialign_gen.serving import BatchingEngine, SharedPipeline

SAMPLES = shipped_folder() / "samples"
ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("a cat", "a red car", "a tree", "a fish")
COLOURS = ("a red", "a blue", "a green", "a golden", "an old", "a small", "a wooden", "a painted")
THINGS = ("cat", "car", "tree", "fish", "bird", "drum", "house", "dog", "train", "flower", "boat", "horse")
SOUNDS = (None, "cow.flac", "chicken.flac")
STEPS = 2
TURN = 48  # requests
PLACES = (  # README.md lies where the server runs
    *("/etc/passwd", "../" * 9 + "etc/passwd", "README.md", "/dev/zero", "/tmp", "a\0b", "~/.ssh/id_rsa"),
    *("concat:/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:22/", "https://169.254.169.254/latest"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0.5, 1e308, 10**400, "1", "NaN", "x" * 100_000, "\0", "\u202e\ud83d", "<script>alert(1)</script>"),
    *([], {}, [[[]]], {"a": {"b": 1}}, [1, 2], {"__type__": "update", "value": 1}, "../../etc/passwd", "'; DROP TABLE x; --"),
)
NAMES = (  # of parameters
    *("text", "audio", "text_weight", "mix", "seed", "steps", "guidance", "pictures", "model", "kept", "best_of", "size"),
)
BODIES = (
    *(b"", b"{", b"null", b"[" * 3000, b"\xff\xfe", b'{"data": 1}', b'{"data": []}', b"x" * 250_000),
    b'{"data": [' + b"1," * 900 + b"1]}",
    b'{"data":[],"fn_index":99999,"session_hash":"x"}',
    b'{"data":[],"fn_index":-1,"session_hash":"../x"}',
)
ROUTES = (
    *("call/create", "call/v2/live", "call/nothing", "queue/join", "cancel", "reset", "upload", "run/predict", "api/create"),
    *("component_server", "stream/x", "process_recording"),
)
LEAKS = re.compile(rf"Traceback|site-packages|root:x:|File \"|{re.escape(str(ROOT))}|{re.escape(str(Path.home()))}/")


@dataclass
class Server:
    """A page in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def megabytes(self) -> float:
        """Resident memory of the server, without its decoding processes."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


@contextmanager
def serving() -> Iterator[Server]:
    command = [sys.executable, "-m", "unialign_gen", "demo"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                log.seek(0)
                raise SystemExit(f"the page did not start: {log.read()[-500:]}")
            yield Server(url, process)
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Request:
    text: str
    sound: str | None
    seed: int

    def ask(self, client: Any) -> Path:
        """The picture's file; every part of the settings inside is checked."""
        sound = {} if self.sound is None else {"audio": handle_file(str(SAMPLES / self.sound))}
        pictures, details, *_ = client.predict(text=self.text, **sound, seed=self.seed, steps=STEPS, api_name="/create")
        path = Path(pictures[0]["image"])
        settings = read_picture(path).request
        wanted = [self.text, *([self.sound] if self.sound else [])]
        if [p.value for p in settings.prompts[0]] != wanted or settings.seed != self.seed or details["seeds"] != [self.seed]:
            raise AssertionError(f"asked for {self}, got {settings.prompts} with seed {settings.seed}")
        return path


def difference(a: Image.Image, b: Image.Image) -> int:
    """The largest, in grey levels of 255."""
    return max(high for _, high in ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getextrema())


def same(a: Path, b: Path) -> bool:
    """Whether two pictures differ by rounding only."""
    with Image.open(a) as one, Image.open(b) as other:
        return difference(one, other) <= 1


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{at}": round(float(np.percentile(seconds, at)), 2) for at in (50, 90, 99)}


def mixed_requests(count: int, steps: int | None) -> list[dict[str, Any]]:
    """Calls of many users, as no two are alike: words, sounds, mixes of both, seeds, guidance."""
    draw = random.Random(0)
    sounds = sorted(SAMPLES.glob("*.flac"))
    calls = []
    for i in range(count):
        text = f"{draw.choice(COLOURS)} {draw.choice(THINGS)}"
        both = {"text": text, "audio": str(draw.choice(sounds))}
        prompts = draw.choice((both, both, {**both, "audio": None}, {**both, "text": None}))
        weights = {name: draw.uniform(0.2, 1) for name, value in prompts.items() if value is not None}
        options = {"guidance_scale": draw.uniform(1.5, 6), "num_inference_steps": steps}
        calls.append({**prompts, "weights": weights, "seed": i, **options})
    return calls


@dataclass
class Drawn:
    """Requests that went through an engine: pictures in their order, seconds from request to picture, seconds in all and those
    of the processor's cores, which depend less on what else it does.
    """

    pictures: list[Image.Image] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0
    core_seconds: float = 0.0
    batches: int = 0

    def figures(self) -> dict[str, float]:
        made = len(self.pictures)
        return {
            "seconds": round(self.seconds, 1),
            "a_second": round(made / self.seconds, 2),
            "core_seconds_each": round(self.core_seconds / made, 3),
            "mean_batch": round(made / self.batches, 1),
            **percentiles(self.waits),
        }


def through(pipeline: Any, calls: list[dict[str, Any]], users: int, rows: int, into: Drawn) -> None:
    """All calls by so many users, who wait for each picture, in batches of up to `rows`."""
    with BatchingEngine(rows) as engine, ThreadPoolExecutor(users) as pool:
        shared = SharedPipeline(pipeline, engine)

        def ask(call: dict[str, Any]) -> tuple[Image.Image, float]:
            before = time.monotonic()
            return shared(**call).images[0], time.monotonic() - before

        start, worked = time.monotonic(), time.process_time()
        answers = list(pool.map(ask, calls))
        into.seconds += time.monotonic() - start
        into.core_seconds += time.process_time() - worked
        into.batches += engine.batches
    into.pictures += [picture for picture, _ in answers]
    into.waits += [seconds for _, seconds in answers]


def engine(count: int, users: int, steps: int | None = None, rows: int = 16) -> dict[str, Any]:
    """The same requests one at a time and batched, in one process; the two take turns, so that both meet the same machine."""
    pipeline = unialign_gen.load("starter")
    pipeline.set_progress_bar_config(disable=True)
    calls = mixed_requests(count, steps)
    through(pipeline, calls[: users + 1], users, rows, Drawn())  # encoders are loaded, memory is warm
    alone, batched = Drawn(), Drawn()
    for at in range(0, count, TURN):
        through(pipeline, calls[at : at + TURN], users, 1, alone)
        through(pipeline, calls[at : at + TURN], users, rows, batched)
        sys.stderr.write(f"{len(batched.pictures)} requests, {alone.seconds / batched.seconds:.2f} times the throughput, ")
        sys.stderr.write(f"{alone.core_seconds / batched.core_seconds:.2f} by the cores' time\n")
    apart = [difference(a, b) for a, b in zip(alone.pictures, batched.pictures, strict=True)]
    return {
        "requests": count,
        "users": users,
        "largest_difference": max(apart),
        "pictures_that_differ": sum(a > 0 for a in apart),
        "one_at_a_time": alone.figures(),
        "batched": batched.figures(),
        "times_the_throughput": round(alone.seconds / batched.seconds, 2),
        "times_by_the_cores_time": round(alone.core_seconds / batched.core_seconds, 2),
    }


def one_client(
    url: str, folder: Path, expected: dict[Request, Path], until: float, seed: int
) -> list[tuple[float, str | None]]:
    """Of each answer that a client got until then the seconds, and what was wrong with it."""
    draw = random.Random(seed)
    client = Client(url, verbose=False, download_files=str(folder))
    answers: list[tuple[float, str | None]] = []
    while not answers or time.monotonic() < until:
        request = draw.choice(list(expected))
        start = time.monotonic()
        try:
            wrong = None if same(request.ask(client), expected[request]) else f"{request}: another picture"
        except Exception as error:
            wrong = f"{request}: {error}"
        answers.append((time.monotonic() - start, wrong))
    return answers


def load(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    """Clients side by side for so long; latencies in seconds, memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        alone = Client(server.url, verbose=False, download_files=folder)
        expected = {request: request.ask(alone) for request in starmap(Request, product(TEXTS, SOUNDS, range(2)))}
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            at_work = [pool.submit(one_client, server.url, Path(folder), expected, until, i) for i in range(clients)]
            memory = [server.megabytes()]
            while wait(at_work, min(5.0, seconds / 8)).not_done:
                memory.append(server.megabytes())
    answers = [answer for done in at_work for answer in done.result()]
    failures = [wrong for _, wrong in answers if wrong]
    warm = memory[len(memory) // 4 :]
    return {
        "clients": clients,
        "answers": len(answers),
        "failures": len(failures),
        "first_failures": failures[:5],
        **percentiles([took for took, _ in answers]),
        "memory_first": round(memory[0]),
        "memory_after_a_quarter": round(warm[0]),
        "memory_last": round(server.megabytes()),
    }


def mutated(draw: random.Random) -> tuple[str, bytes]:
    """A sample, or a picture, with bytes changed, cut off, or doubled."""
    name = draw.choice(("cow.flac", "chicken.flac", "sheep.mp4", "tree.png"))
    raw = bytearray(picture() if name == "tree.png" else (SAMPLES / name).read_bytes())
    for _ in range(draw.choice((1, 20, 2000))):
        raw[draw.randrange(min(len(raw), draw.choice((64, 1000, 10**9))))] = draw.randrange(256)
    if draw.random() < 0.3:
        del raw[draw.randrange(len(raw)) :]
    if draw.random() < 0.1:
        raw *= 2
    return draw.choice((name, "x.png", "../../x.wav", "a" * 200 + ".mp4", "\u202ex.flac", "; rm -rf x.mp3")), bytes(raw)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "PNG")
    return buffer.getvalue()


class Attacker:
    """Requests as no page would send them, through plain HTTP."""

    def __init__(self, url: str, seed: int):
        self.http = httpx.Client(base_url=url, timeout=180)
        self.draw = random.Random(seed)

    def call(self, api: str, **given: Any) -> str:
        body = json.dumps(given)  # its escapes let half a surrogate pair through
        headers = {"content-type": "application/json"}
        answer = self.http.post(f"/gradio_api/call/v2/{api}", content=body, headers=headers)
        if answer.status_code != 200:
            return answer.text
        return self.http.get(f"/gradio_api/call/{api}/{answer.json()['event_id']}").text

    def create(self, **changed: Any) -> str:
        return self.call("create", **{"text": "a cat", "seed": 0, "steps": 1, **changed})

    def media(self) -> str:
        name, raw = mutated(self.draw)
        answer = self.http.post("/gradio_api/upload", files={"files": (name, raw)})
        if answer.status_code != 200:
            return answer.text
        file = {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        kind = self.draw.choice(("audio", "video", "image", "animate", "read", "edit"))
        if kind in ("audio", "video", "image"):
            return self.create(**{kind: file})
        if kind == "animate":
            return self.call("animate", sound=file, pictures=1, steps=1)
        return self.call("edit", picture=file, text="a", steps=1) if kind == "edit" else self.call(kind, file=file)

    def path(self) -> str:
        place = self.draw.choice(PLACES)
        value: Any = {"path": place, "meta": {"_type": "gradio.FileData"}}
        if self.draw.random() < 0.3:
            value = self.draw.choice(({"path": place}, place, [value], {"url": place, "meta": value["meta"]}, {"image": value}))
        if self.draw.random() < 0.3:
            try:
                return self.http.get(f"/gradio_api/{self.draw.choice(('file=', 'file/', 'proxy=', 'stream/'))}{place}").text
            except httpx.InvalidURL:
                return ""
        return self.create(**{self.draw.choice(("audio", "video", "image", "text", "model", "seed")): value})

    def values(self) -> str:
        names = self.draw.sample(NAMES, self.draw.randint(1, 3))
        return self.create(**{name: self.draw.choice(VALUES) for name in names})

    def body(self) -> str:
        content, route = self.draw.choice(BODIES), self.draw.choice(ROUTES)
        answer = self.http.post(f"/gradio_api/{route}", content=content, headers={"content-type": "application/json"})
        return answer.text

    def attack(self) -> str:
        """One of them; all of its answer."""
        return self.draw.choice((self.media, self.path, self.values, self.body))()


def hostile(server: Server, count: int) -> dict[str, Any]:
    """So many attacks, one after the other; then an honest request."""
    before = server.megabytes()
    attacker, leaks, broken = Attacker(server.url, 0), [], []
    with tempfile.TemporaryDirectory() as folder:
        client = Client(server.url, verbose=False, download_files=folder)
        request = Request("a cat", "cow.flac", 3)
        expected = request.ask(client)
        for _ in range(count):
            try:
                said = attacker.attack()
            except httpx.HTTPError as error:  # a closed connection is an answer too, as long as the next one opens
                broken.append(type(error).__name__)
                continue
            if found := LEAKS.search(said):
                leaks.append(said[max(0, found.start() - 80) : found.end() + 80])
        alive = server.process.poll() is None
        answers = alive and same(request.ask(client), expected)
    return {
        "requests": count,
        "leaks": len(leaks),
        "first_leaks": leaks[:3],
        "connections_closed": len(broken),
        "alive": alive,
        "draws_as_before": answers,
        "memory_first": round(before),
        "memory_last": round(server.megabytes()) if alive else None,
    }


def main(
    drawn: Annotated[int, typer.Option("--engine", help="Requests to the engine; none by default.")] = 0,
    seconds: Annotated[float, typer.Option(help="Of load; none by default.")] = 0,
    clients: int = 16,
    attacks: Annotated[int, typer.Option("--hostile", help="Attacks; none by default.")] = 0,
) -> None:
    """Prints JSON."""
    if not (drawn or seconds or attacks):
        raise typer.BadParameter("give --engine, --seconds or --hostile")
    result = {"engine": engine(drawn, clients)} if drawn else {}
    if seconds or attacks:
        with serving() as server:
            if seconds:
                result["load"] = load(server, clients, seconds)
            if attacks:
                result["hostile"] = hostile(server, attacks)
    typer.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    typer.run(main)
