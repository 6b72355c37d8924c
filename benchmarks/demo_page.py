"""The page in a real browser, timed: how soon it is usable, five tasks in clicks and seconds, and Live for two minutes.

    python benchmarks/demo_page.py open
    python benchmarks/demo_page.py tasks
    python benchmarks/demo_page.py live --seconds 120

Needs Chromium, its driver and selenium. Each command starts a server of its own, prints JSON, and Live ends with status 1
where a promise is broken: the first picture within a second, four pictures a second, none dropped, no growth of memory.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import numpy as np
import typer
from scipy.io import wavfile
from selenium import webdriver
from selenium.common import TimeoutException
from selenium.webdriver.support.wait import WebDriverWait

from unialign_gen.loading import shipped_folder
from unialign_gen.media import load_sound

SAMPLES = shipped_folder() / "samples"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1280,1000"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required"),
)
WARM = 10  # seconds after which Live's memory is measured first
GROWTH = 40  # MB
PATIENCE = 90  # seconds


class Browser:
    """Chromium on the page, with the gestures that tasks are made of; `clicks` counts them."""

    def __init__(self, url: str, folder: Path, microphone: Path):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--use-file-for-fake-audio-capture={microphone}", f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_script_timeout(PATIENCE)
        self.url, self.folder, self.clicks = url, folder, 0

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """What `found` gives, once it is something."""
        waiting = WebDriverWait(self.driver, PATIENCE, 0.03, [Exception])  # such as of a page that was redrawn meanwhile
        try:
            return waiting.until(lambda _: found())
        except TimeoutException:
            raise AssertionError(f"{what} does not come: {self.all('body')[0].text}") from None

    def wait(self, css: str, words: str = "") -> Any:
        """The first element that matches and holds these words, once there is one."""
        fits: Callable[[Any], bool] = lambda e: words in (e.text or e.get_attribute("value") or "")  # noqa: E731
        return self.until(lambda: next((e for e in self.all(css) if fits(e)), None), f"{css} {words!r}")

    def open(self) -> None:
        """The page as one who has not been there finds it, whatever this tab keeps for a reload."""
        if self.all("#ask"):
            self.script("document.onvisibilitychange = null; sessionStorage.clear()")
        self.driver.get(self.url)
        self.wait("#strip li")

    def click(self, css: str, words: str = "") -> None:
        self.clicks += 1
        click = "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"  # of SVG links too
        self.script(click, self.wait(css, words))

    def write(self, words: str, css: str = ".part[data-kind=text] .words") -> None:
        self.clicks += 1
        field = self.wait(css)
        field.clear()
        field.send_keys(words)

    def give(self, *files: Path, by: str = "audio") -> None:
        """Files through the chooser of one of the buttons."""
        self.clicks += 2
        self.all(f"[data-add={by}]")[0].send_keys("\n".join(map(str, files)))

    def set(self, name: str, value: Any) -> None:
        code = """const e = document.getElementById(arguments[0]); e.value = arguments[1];
        e.dispatchEvent(new Event('input', {bubbles: true}))"""
        self.script(code, name, str(value))

    def results(self) -> int:
        return len(self.all("#strip li"))

    def draws(self, act: Callable[[], Any], more: int = 1) -> str:
        """Does something that draws; the address of what is shown once there are so many results more."""
        before = self.results()
        act()
        self.until(lambda: self.results() >= before + more, "a result")
        return str(self.script("return document.querySelector('#download').href"))

    def fetched(self, address: str, name: str) -> Path:
        """The file behind an address, as the browser gets it."""
        code = """const done = arguments[1]; fetch(arguments[0]).then(r => r.arrayBuffer())
        .then(b => done(Array.from(new Uint8Array(b))));"""
        (self.folder / name).write_bytes(bytes(self.driver.execute_async_script(code, address)))
        return self.folder / name

    def heap(self) -> float:
        """The page's JavaScript heap after a collection, in MB."""
        self.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        return float(self.script("return performance.memory.usedJSHeapSize")) / 1e6


def microphone(folder: Path) -> Path:
    """Three samples one after the other as the WAV file that Chromium's fake microphone plays."""
    parts = [load_sound(SAMPLES / name, 44100).numpy() for name in ("cow.flac", "guitar.flac", "train.flac")]
    samples = np.concatenate([p / max(1e-6, float(np.abs(p).max())) for p in parts])
    wavfile.write(folder / "microphone.wav", 44100, (samples * 20000).astype("<i2"))
    return folder / "microphone.wav"


@contextmanager
def browsing() -> Iterator[tuple[Browser, Any]]:
    from demo_load import serving

    with tempfile.TemporaryDirectory() as name, serving() as server:
        folder = Path(name)
        browser = Browser(server.url, folder, microphone(folder))
        try:
            browser.until(lambda: httpx.get(f"{server.url}page/opening", timeout=60).json()["done"], "the opening")
            yield browser, server
        finally:
            browser.driver.quit()


def opening(browser: Browser, _: Any) -> dict[str, Any]:
    """Seconds until the page can be used and its first picture is seen, and its bytes."""
    begun = time.monotonic()
    browser.driver.get(browser.url)
    usable = browser.script("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000
    browser.until(lambda: browser.script("return document.querySelector('#picture').naturalWidth"), "a picture")
    seen = time.monotonic() - begun
    time.sleep(1)
    cost = browser.script("return performance.getEntries().reduce((sum, e) => sum + (e.transferSize || 0), 0)")
    return {"usable_s": round(usable, 2), "picture_s": round(seen, 2), "kB": round(cost / 1000)}


def tasks(browser: Browser, _: Any) -> dict[str, Any]:
    """Five things that a visitor wants, in clicks and seconds."""

    def recording() -> None:
        browser.click("#record")
        time.sleep(2)
        browser.click("#record")
        browser.wait(".part .heard")
        browser.draws(lambda: browser.click("#draw"))

    def song() -> None:
        browser.click("#tab-film")
        browser.give(SAMPLES / "train.flac")
        browser.wait(".part .heard")
        browser.draws(lambda: browser.click("#draw"))

    def tomorrow() -> None:
        browser.click("#strip li:first-child button")
        picture = browser.fetched(browser.script("return document.querySelector('#download').href"), "mine.png")
        browser.clicks += 1  # the download
        browser.open()
        browser.give(picture, by="image")
        browser.wait("#status", "are back")
        browser.draws(lambda: browser.click("#draw"))

    def heard() -> None:
        browser.give(SAMPLES / "cow.flac")
        browser.wait(".part .heard", "cow")

    found = {}
    jobs = {
        "a picture from my recording": recording,
        "more like it": lambda: browser.draws(lambda: browser.click("#alike"), 4),
        "a film from a song": song,
        "the same picture tomorrow": tomorrow,
        "what did it hear": heard,
    }
    browser.open()
    for name, task in jobs.items():
        browser.clicks, begun = 0, time.monotonic()
        task()
        found[name] = {"clicks": browser.clicks, "seconds": round(time.monotonic() - begun, 1)}
        browser.open()
    return found


def live(browser: Browser, server: Any, seconds: float) -> dict[str, Any]:
    """Live from the fake microphone: pictures, calls and memory, of the page and of the server."""
    browser.open()
    browser.click("#tab-live")
    browser.click("#draw")
    browser.until(lambda: browser.script("return window.liveStats?.pictures"), "the first picture")
    time.sleep(WARM)
    heap, memory = browser.heap(), server.megabytes()
    before, begun = browser.script("return window.liveStats"), time.monotonic()
    time.sleep(seconds)
    after, took = browser.script("return window.liveStats"), time.monotonic() - begun
    growth, server_growth = browser.heap() - heap, server.megabytes() - memory
    browser.draws(lambda: browser.click("#draw"))
    film = browser.fetched(browser.script("return document.querySelector('#download').href"), "live.webm")
    found = {
        "first_picture_s": round(after["first"] / 1000, 2),
        "pictures_a_second": round((after["pictures"] - before["pictures"]) / took, 2),
        "failed_calls": after["failures"],
        "dropped_pictures": after["dropped"],
        "longest_gap_s": round(after["longest"] / 1000, 2),
        "page_growth_MB": round(growth, 1),
        "server_growth_MB": round(server_growth, 1),
        "film_kB": film.stat().st_size // 1000,
    }
    kept = found["first_picture_s"] <= 1 and found["pictures_a_second"] >= 4 and not found["failed_calls"]
    return {**found, "kept": bool(kept and not found["dropped_pictures"] and max(growth, server_growth) < GROWTH)}


def main(what: Literal["open", "tasks", "live"], seconds: Annotated[float, typer.Option(help="Of Live.")] = 120.0) -> None:
    """Prints JSON."""
    with browsing() as (browser, server):
        found = {"open": opening, "tasks": tasks, "live": partial(live, seconds=seconds)}[what](browser, server)
    typer.echo(json.dumps(found, indent=1))
    if not found.get("kept", True):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
