"""The page in a real browser: what a person would do, click by click."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unialign_gen.demo.models import Model
from unialign_gen.loading import shipped_folder
from unialign_gen.request.picture_settings import read_picture

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if os.environ.get("CI") and not (CHROMIUM and DRIVER):
    raise RuntimeError("the page's tests need chromium and chromedriver, which are not installed")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

SAMPLES = shipped_folder() / "samples"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1280,1400",
)  # fmt: skip
PATIENCE = 120


class Page:
    """The browser, with the few gestures that the tests need."""

    def __init__(self, driver, url, downloads):
        self.driver, self.url, self.downloads = driver, url, downloads

    def open(self):
        """The page as a visitor finds it, its settings open; parts of it come one after the other."""
        self.driver.get(self.url)
        for name in ("draw", "text", "audio", "video", "image", "examples", "settings > button", "seen-box > button"):
            self.wait(f"#{name}")
        self.unfold("settings", "steps")
        self.set("steps", 2)

    def whole(self):
        return bool(self.all("#draw") and self.all("#steps input[type=number]"))

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def wait(self, css, words="", gone=False):
        """The first element that matches and holds these words, once there is one."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                found = [e for e in self.all(css) if words in (e.text or e.get_attribute("value") or "")]
            except Exception:  # the page was redrawn meanwhile
                continue
            if bool(found) != gone:
                return found[0] if found else None
            time.sleep(0.05)
        raise AssertionError(
            f"{css} {words!r} {'stays' if gone else 'does not come'}: {self.driver.find_element('tag name', 'body').text}"
        )

    def script(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def click(self, css):
        self.script("arguments[0].click()", self.wait(css))

    def unfold(self, name, inside):
        """Opens a fold; clicked again while it stays shut, since a button can come before what it does."""
        end = time.monotonic() + PATIENCE
        while not self.all(f"#{inside}"):
            assert time.monotonic() < end, f"#{name} does not open"
            if "open" not in (self.wait(f"#{name} > button").get_attribute("class") or "").split():
                self.click(f"#{name} > button")
            time.sleep(1)

    def tab(self, name):
        self.click_first("button[role=tab]", name)

    def click_first(self, css, words):
        """Clicks what matches and holds these words."""
        self.script("arguments[0].click()", self.wait(css, words))

    def set(self, name, value):
        """The number in a slider's or a number's own field."""
        code = """const e = document.querySelector(arguments[0]); e.value = arguments[1];
        for (const kind of ['input', 'change', 'blur', 'pointerup']) e.dispatchEvent(new Event(kind, {bubbles: true}));"""
        self.wait(f"#{name} input[type=number]")
        self.script(code, f"#{name} input[type=number]", str(value))

    def write(self, css, words):
        field = self.wait(css)
        field.clear()
        field.send_keys(words)

    def upload(self, name, path):
        self.wait(f"#{name} input[type=file]")
        self.driver.find_element("css selector", f"#{name} input[type=file]").send_keys(str(path))

    def drawn(self, before=None):
        """The file of the picture in the gallery, once it is another one than before."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = self.script("return [...document.querySelectorAll('#gallery img')].map(e => e.src)")
            if found and found[0] != before:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no picture: {self.driver.find_element('tag name', 'body').text}")

    def fetched(self, url, name):
        """The file behind an address, as the browser gets it."""
        code = """const done = arguments[1]; fetch(arguments[0]).then(r => r.arrayBuffer())
        .then(b => done(Array.from(new Uint8Array(b))));"""
        path = self.downloads / name
        path.write_bytes(bytes(self.driver.execute_async_script(code, url)))
        return path


@pytest.fixture(scope="module")
def page(served, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    yield Page(driver, served.url, tmp_path_factory.mktemp("downloads"))
    driver.quit()


@pytest.fixture
def fresh(page):
    page.open()
    return page


@pytest.fixture
def used(page):
    """The page as the test before left it: loading it is what takes longest."""
    if not page.whole():
        page.open()
    return page


def requested(page):
    """Addresses that the page has asked for."""
    events = [json.loads(e["message"])["message"] for e in page.driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def test_words_become_the_picture_that_the_library_draws_and_nothing_is_fetched_from_elsewhere(fresh, starter):
    fresh.write("#text textarea", "a red car")
    fresh.click("#draw")
    path = fresh.fetched(fresh.drawn(), "car.png")
    expected = starter(text="a red car", seed=0, num_inference_steps=2).images[0]
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(expected))
    assert "car" in fresh.wait("#understood .ua-bar").text
    fresh.click("#recipe > button")
    assert "--text 'a red car'" in fresh.wait("#shell .cm-content").text.replace("\n", " ")
    elsewhere = [
        u for u in requested(fresh) if not u.startswith((fresh.url, "data:", "blob:", "chrome://", "chrome-untrusted://"))
    ]
    assert elsewhere == []
    assert [e for e in fresh.driver.get_log("browser") if e["level"] == "SEVERE"] == []


def test_a_sound_a_video_and_a_picture_are_mixed_with_weights(fresh, starter, tmp_path):
    starter(text="a cat", seed=1, num_inference_steps=2).images[0].save(tmp_path / "cat.png")
    files = {"audio": SAMPLES / "cow.flac", "video": SAMPLES / "sheep.mp4", "image": tmp_path / "cat.png"}
    for name, path in files.items():
        fresh.upload(name, path)
    fresh.wait("#audio #waveform, #audio .waveform-container, #audio audio")
    fresh.wait("#video video")
    fresh.wait("#image img")
    fresh.set("weight-audio", 0.5)
    fresh.set("weight-image", -0.25)
    fresh.click("#draw")
    found = read_picture(fresh.fetched(fresh.drawn(), "mix.png")).request
    assert [(p.kind, p.value, p.weight) for p in found.prompts[0]] == [
        ("audio", "cow.flac", 0.5),
        ("video", "sheep.mp4", 1),
        ("image", "cat.png", -0.25),
    ]
    fresh.click("#seen-box > button")
    fresh.wait("#seen .ua-wave")
    assert len(fresh.all("#seen .ua-frames img")) == 9


def test_a_png_brings_its_settings_back_and_stands_for_its_files(fresh, starter):
    fresh.write("#text textarea", "a robot")
    fresh.upload("audio", SAMPLES / "cow.flac")
    fresh.set("weight-text", 0.6)
    fresh.set("seed", 11)
    fresh.wait("#audio #waveform, #audio .waveform-container, #audio audio")
    fresh.click("#draw")
    first = fresh.fetched(fresh.drawn(), "robot.png")
    fresh.open()
    fresh.upload("restore", first)
    fresh.wait("#kept-note", "cow.flac")
    fresh.wait("#text textarea", "a robot")
    fresh.click("#draw")
    again = fresh.fetched(fresh.drawn(), "again.png")
    assert read_picture(again) == read_picture(first)
    assert read_picture(again).request.seed == 11
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(first)))


def test_an_example_works_at_one_click(fresh):
    fresh.click_first("#examples button", "moo")
    found = read_picture(fresh.fetched(fresh.drawn(), "example.png")).request
    assert found.prompts[0][0].value == "cow.flac"


def test_another_model_brings_its_own_steps_and_guidance(fresh):
    second = Model.of("starter, stable-unclip decoder", "starter", "stable-unclip")
    fresh.set("guidance", 7)
    fresh.wait("#model input").click()
    fresh.wait("[role=option]", "stable-unclip").click()
    fresh.wait("#guidance input[type=number]", f"{second.guidance:g}")
    fresh.wait("#steps input[type=number]", f"{second.steps}")
    assert float(fresh.wait("#guidance input[type=number]").get_attribute("value")) == second.guidance


def test_stopping(used):
    used.tab("Create")
    used.set("steps", 50)
    used.set("pictures", 8)
    used.write("#text textarea", "a tree")
    used.click("#draw")
    used.wait("#stage", "drawing")
    used.click("#stop")
    used.wait("#stage", "Stopped")
    before = used.script("return document.querySelector('#gallery img')?.src")
    used.set("steps", 2)
    used.set("pictures", 1)
    used.click("#draw")
    used.drawn(before)


def test_a_bad_file_is_one_line_in_the_page(used, tmp_path):
    (tmp_path / "noise.png").write_bytes(b"\x89PNG nothing" * 40)
    used.upload("image", tmp_path / "noise.png")
    time.sleep(0.5)
    used.click("#draw")
    said = used.wait(".toast-body, .toast-wrap", "noise.png is not a picture").text
    assert "/" not in said.replace("noise.png", "")
    (tmp_path / "other.png").write_bytes(b"\x89PNG nothing" * 40)
    used.upload("restore", tmp_path / "other.png")
    used.wait(".toast-wrap", "the settings of other.png cannot be read")


def test_a_way_from_station_to_station(used):
    used.tab("Travel")
    used.write("#station-1 textarea, #station-1 input", "a dog")
    used.upload("station-file-2", SAMPLES / "sheep.mp4")
    used.write("#station-2 textarea, #station-2 input", "a lion")
    used.unfold("travel-settings", "between")
    used.set("between", 2)
    used.set("travel-steps", 2)
    used.click("#travel")
    used.wait("#exports", ".gif")
    assert ".mp4" in used.wait("#exports").text
    slider = used.wait("#player input[type=range]")
    assert slider.get_attribute("max") == "2"
    move = "const e = arguments[0]; e.value = 2; e.dispatchEvent(new Event('input', {bubbles: true}));"
    used.script(move, slider)
    assert used.wait("#player .ua-label", "lion").text == "a lion + sheep.mp4"
    shown = used.script("return document.querySelector('#player img').src")
    used.script(move.replace("= 2", "= 0"), slider)
    assert used.script("return document.querySelector('#player img').src") != shown
    used.click("#player button")
    used.wait("#player .ua-label", "0.50")


def test_a_film_of_a_sound(used):
    used.tab("Film")
    used.upload("film-sound", SAMPLES / "chicken.flac")
    used.wait("#film-sound #waveform, #film-sound .waveform-container, #film-sound audio")
    used.unfold("film-settings", "film-pictures")
    used.set("film-pictures", 2)
    used.set("film-steps", 2)
    used.click("#film")
    used.wait("#film-stage", "pictures")
    address = used.wait("#film-video video").get_attribute("src")
    path = used.fetched(address, "film.mp4")
    import av

    with av.open(str(path)) as container:
        assert {s.type for s in container.streams} == {"video", "audio"}


def test_a_prompt_on_the_map(used):
    used.tab("Explore")
    used.wait("#map circle")
    assert len(used.all("#map circle")) > 100
    used.write("#place-text textarea, #place-text input", "a pony")
    used.click("#place")
    assert used.wait("#map .ua-spot-name").text == "a pony"
    assert "horse" in used.wait("#map-near .ua-bar").text


def test_it_fits_a_phone(used):
    used.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for name in ("Create", "Travel", "Film", "Explore"):
            used.tab(name)
            time.sleep(0.3)
            assert used.script("return document.documentElement.scrollWidth") <= 390
    finally:
        used.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_app_py_is_the_same_page():
    assert "launch()" in (Path(__file__).resolve().parent.parent / "app.py").read_text()
