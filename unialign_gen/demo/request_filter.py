"""What stands before the page's server: only the routes it needs, bounded bodies and rates, no address to fetch from.

It answers `/health` itself, and writes the access log.
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

API = "/gradio_api/"
LOGIN = ("/login", "/login/", "/logout")  # where the page asks for a name and a password
ROUTES = ("/static/", "/assets/", "/svelte/")
PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json", "/gradio_api")
CALLS = (
    "info", "openapi.json", "queue/", "call/", "run/", "upload", "upload_progress", "file=", "cancel", "reset", "heartbeat/",
    "startup-events", "app_id", "login_check", "user", "token", "theme.css",
)  # fmt: skip
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'",
    ),
]
DEEPEST = 32
MOST_ADDRESSES = 10_000
access = logging.getLogger("unialign_gen.access")


class RequestFilter:
    """ASGI middleware, see the top of this file.

    Args:
        cache: the folder of uploads and answers, whose size is bounded.
        login: whether the page asks for a name and a password.
        health: what `/health` says, with status 200 where its `status` is `ok`, 503 otherwise.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        limits: Limits,
        cache: Path,
        login: bool = False,
        health: Callable[[], dict[str, Any]] = lambda: {"status": "ok"},
    ):
        self.app, self.limits, self.cache, self.login, self.health = app, limits, cache, login, health
        self.asked: OrderedDict[tuple[str, float], tuple[float, float]] = OrderedDict()  # to (requests left, when)
        self.size = (0.0, 0)  # when the cache was measured, and its bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = str(scope["path"]).removeprefix(str(scope.get("root_path") or ""))
        if path == "/health":
            found = self.health()
            await answer(send, 200 if found["status"] == "ok" else 503, found)
            return
        begun, status, size = time.monotonic(), 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            status, size = message.get("status", status), size + len(message.get("body", b""))
            await send(message)

        try:
            await self.admit(scope, path, receive, sending)
        finally:
            asked = f"{address(scope)} {scope['method']} {quote(path)}"
            access.info("%s %d %d %.3f", asked, status, size, time.monotonic() - begun)

    async def admit(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        """Hands a request on, or refuses it."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        uploading, posting = path.rstrip("/") == API + "upload", scope["method"] == "POST"
        logging_in = self.login and posting and path.startswith("/login")
        most = self.limits.file_bytes + 10_000 if uploading else self.limits.request_bytes
        if not allowed(path) and not (self.login and path in LOGIN):
            await refuse(send, 404, "there is nothing here")
        elif posting and not self.may_ask(scope, self.limits.requests_a_minute):
            await refuse(send, 429, "too many requests from this address: wait a minute")
        elif logging_in and not self.may_ask(scope, self.limits.logins_a_minute):
            await refuse(send, 429, "too many attempts to log in from this address: wait a minute")
        elif not length.isdigit() or int(length) > most:
            await refuse(send, 413, f"too large: at most {most // 1000} kB")
        elif uploading and self.cache_size() > self.limits.cache_bytes:
            await refuse(send, 507, "this page holds as many files as it may: try again later")
        elif uploading or logging_in:
            await self.app(scope, bounded(receive, most), dressed(send))
        elif posting:
            body = await whole_body(receive, most)
            if body is None or not plain(body):
                await refuse(send, 400, "this request cannot be used: files are uploaded first, and named by their upload")
            else:
                await self.app(scope, replay(body, receive), dressed(send))
        else:
            await self.app(scope, receive, dressed(send))

    def may_ask(self, scope: Scope, a_minute: int) -> bool:
        """One more request of this address: a bucket of so many a minute that fills up evenly."""
        most, now = float(a_minute), time.monotonic()
        key = (address(scope), most)
        left, then = self.asked.pop(key, (most, now))
        left = min(most, left + (now - then) * most / 60)
        self.asked[key] = (left - 1 if left >= 1 else left, now)
        while len(self.asked) > MOST_ADDRESSES:
            self.asked.popitem(last=False)
        return left >= 1

    def cache_size(self) -> int:
        """Bytes of all files that wait to be removed, measured at most once a second."""
        now = time.monotonic()
        if now - self.size[0] > 1:
            total = 0
            for file in self.cache.rglob("*"):
                try:
                    total += file.stat().st_size
                except OSError:  # removed meanwhile
                    continue
            self.size = (now, total)
        return self.size[1]


def allowed(path: str) -> bool:
    """Whether the page needs this route. Addresses after `file=` would be fetched by the server: none is."""
    if path in PAGES or path.startswith(ROUTES):
        return True
    if not path.startswith(API):
        return False
    rest = path.removeprefix(API)
    return rest.startswith(CALLS) and not rest.removeprefix("file=").lower().lstrip("/").startswith(("http:", "https:"))


def plain(body: bytes) -> bool:
    """Whether a JSON body names no file by an address, and is not nested beyond reason."""
    if not body:
        return True
    try:
        rows = [(json.loads(body), 0)]
    except (ValueError, RecursionError):
        return False
    while rows:
        value, depth = rows.pop()
        if depth > DEEPEST:
            return False
        if isinstance(value, dict):
            path = value.get("path")
            if path is not None and (not isinstance(path, str) or "://" in path or "\0" in path):
                return False
            rows += [(v, depth + 1) for v in value.values()]
        elif isinstance(value, list):
            rows += [(v, depth + 1) for v in value]
    return True


async def whole_body(receive: Receive, most: int) -> bytes | None:
    """All of a body; nothing if it is longer than it may be, or its sender left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def bounded(receive: Receive, most: int) -> Receive:
    """A body that breaks off where it is longer than it may be, whatever it said of its length."""
    got = 0

    async def counted() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return {"type": "http.disconnect"} if got > most else message

    return counted


def dressed(send: Send) -> Send:
    """Answers with `HEADERS`."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sending


def address(scope: Scope) -> str:
    """Who asks; behind a proxy that uvicorn trusts (FORWARDED_ALLOW_IPS), whom it asks for."""
    return str((scope.get("client") or ("?", 0))[0])


async def refuse(send: Send, status: int, line: str) -> None:
    await answer(send, status, {"detail": line})


async def answer(send: Send, status: int, what: dict[str, Any]) -> None:
    body = json.dumps(what).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
