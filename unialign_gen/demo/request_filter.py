"""What stands before the page's server: only the routes it needs, bounded bodies and rates.

It answers `/health` itself, and writes the access log.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits

API = "/gradio_api/"
LOGIN = ("/login", "/login/", "/logout")  # where the page asks for a name and a password
ROUTES = ("/page/", "/static/", "/assets/", "/svelte/")
PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json", "/gradio_api")
CALLS = (
    "info", "openapi.json", "queue/", "call/", "run/", "upload", "upload_progress", "file=", "cancel", "reset", "heartbeat/",
    "startup-events", "app_id", "login_check", "user", "token", "theme.css",
)  # fmt: skip
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"content-security-policy": b"default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'",
}
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
        app: ASGIApp,
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
            await JSONResponse(found, 200 if found["status"] == "ok" else 503)(scope, receive, send)
            return
        begun, status, size = time.monotonic(), 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *HEADERS.items()]}
            size += len(message.get("body", b""))
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
        refusal = None
        if not allowed(path) and not (self.login and path in LOGIN):
            refusal = 404, "there is nothing here"
        elif posting and not self.may_ask(scope, self.limits.requests_a_minute):
            refusal = 429, "too many requests from this address: wait a minute"
        elif logging_in and not self.may_ask(scope, self.limits.logins_a_minute):
            refusal = 429, "too many attempts to log in from this address: wait a minute"
        elif not length.isdigit() or int(length) > most:
            refusal = 413, f"too large: at most {most // 1000} kB"
        elif uploading and self.cache_size() > self.limits.cache_bytes:
            refusal = 507, "this page holds as many files as it may: try again later"
        # a body may be longer than it says
        bounded = RequestBodyLimitMiddleware(self.app, most)
        answer = bounded if refusal is None else JSONResponse({"detail": refusal[1]}, refusal[0])
        await answer(scope, receive, send)

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
            with suppress(OSError):  # a file was removed meanwhile
                self.size = (now, sum(file.stat().st_size for file in self.cache.rglob("*")))
        return self.size[1]


def allowed(path: str) -> bool:
    """Whether the page needs this route. Addresses after `file=` would be fetched by the server: none is."""
    if path in PAGES or path.startswith(ROUTES):
        return True
    if not path.startswith(API):
        return False
    rest = path.removeprefix(API)
    return rest.startswith(CALLS) and not rest.removeprefix("file=").lower().lstrip("/").startswith(("http:", "https:"))


def address(scope: Scope) -> str:
    """Who asks; behind a proxy that uvicorn trusts (FORWARDED_ALLOW_IPS), whom it asks for."""
    return str((scope.get("client") or ("?", 0))[0])
