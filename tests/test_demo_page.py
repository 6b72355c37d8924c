"""The page in a real browser: what a person would do, click by click."""

import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from unialign_gen.demo.engine import Model
from unialign_gen.loading import own_prior, own_settings, shipped_folder
from unialign_gen.request.picture_settings import PictureSettings, read_picture, save_picture

ActionChains = pytest.importorskip("selenium.webdriver", reason="selenium is not installed").ActionChains
CHROMIUM = shutil.which("chromium") and shutil.which("chromedriver")
if os.environ.get("CI") and not CHROMIUM:
    raise RuntimeError("the page's tests need chromium and chromedriver, which are not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium and chromedriver are not installed")

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = shipped_folder() / "samples"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
MODES = ("create", "edit", "live", "travel", "film", "explore")


@pytest.fixture(scope="module")
def page(served, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("demo_page", ROOT / "benchmarks" / "demo_page.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_page"] = module
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("browser")
    browser = module.Browser(served.url, folder, module.microphone(folder))
    browser.until(lambda: served.opening.done, "the opening")
    browser.open()
    yield browser
    browser.driver.quit()


@pytest.fixture
def fresh(page):
    """The page with nothing but a few steps set; it is not loaded again, which is what takes longest."""
    if not page.all("#draw"):
        page.open()
    page.script("document.querySelector('#tab-create').click()")
    page.script("document.querySelectorAll('.part .remove').forEach(e => e.click())")
    own = {"prior_strength": own_prior("starter"), "guidance": own_settings("starter")[1]}
    for name, value in {"seed": 0, "steps": 2, "pictures": 1, **own}.items():
        page.set(name, value)
    page.driver.get_log("browser")
    return page


def add(page, path, by):
    page.give(path, by=by)
    page.until(lambda: path.name in page.all("#parts")[0].text and page.all(".part:last-child .heard"), f"{path.name} as read")


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_it_opens_on_pictures_asks_nobody_else_and_is_small(page, served):
    page.until(lambda: page.script("return document.querySelector('#picture').naturalWidth") == 512, "a picture")
    labels = [e.text for e in page.all("#strip button")]
    assert labels[:5] == ["words", "a sound", "a mix", "a video", "a film"]
    found = page.script(
        "return performance.getEntries().filter(e => e.name.includes('://')).map(e => [e.name, e.transferSize])"
    )
    assert [url for url, _ in found if not url.startswith((served.url, "data:", "blob:"))] == []
    assert sum(size for _, size in found) < 1_000_000
    assert [e for e in page.driver.get_log("browser") if e["level"] == "SEVERE"] == []
    assert {"Paper", "Model card", "Licences", "API"} <= {e.text for e in page.all("header a")}
    assert page.all("a[role=button]") == []  # the space bar would do nothing
    for link in page.all("header a")[1:]:
        code = "const done = arguments[1]; fetch(arguments[0]).then(r => done(r.status))"
        assert page.driver.execute_async_script(code, link.get_attribute("href")) == 200


def test_enter_draws_the_picture_that_the_library_draws(fresh, starter):
    path = fresh.fetched(fresh.draws(lambda: fresh.write("a red car\n")), "car.png")
    assert same(Image.open(path), starter(text="a red car", seed=0, num_inference_steps=2).images[0])
    assert "car" in fresh.wait("#understood .bar").text
    assert "--text 'a red car'" in fresh.script("return document.querySelector('#command').textContent")
    fresh.click("#strip li:nth-child(2) button")  # what was understood belongs to the picture that is shown
    assert "cow" in fresh.wait("#understood .bar").text
    assert "cow.flac" in fresh.all("#parts")[0].text


def test_parts_have_weights_from_the_second_on_and_several_of_a_kind(fresh, starter, tmp_path):
    starter(text="a cat", seed=1, num_inference_steps=1).images[0].convert("L").save(tmp_path / "cat.jpg")
    fresh.write("a robot")
    assert not fresh.all(".weighted")
    for name, by in (("cow.flac", "audio"), ("chicken.flac", "audio"), ("sheep.mp4", "video")):
        add(fresh, SAMPLES / name, by)
    add(fresh, tmp_path / "cat.jpg", "image")
    assert "Understood as cow" in fresh.all(".part")[1].text
    code = """const e = document.querySelectorAll('.part .weight input')[arguments[0]]; e.value = arguments[1];
    e.dispatchEvent(new Event('input', {bubbles: true}))"""
    fresh.script(code, 1, 0.5)
    fresh.script(code, 4, -0.25)
    found = read_picture(fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "mix.png")).request
    assert [(p.kind, p.value, p.weight) for p in found.prompts[0]] == [
        *[("text", "a robot", 1), ("audio", "cow.flac", 0.5), ("audio", "chicken.flac", 1), ("video", "sheep.mp4", 1)],
        ("image", "cat.jpg", -0.25),
    ]
    assert len(fresh.all(".part:nth-child(4) .read img")) == 8


def test_the_same_picture_tomorrow_from_its_file(fresh):
    fresh.write("a robot")
    add(fresh, SAMPLES / "cow.flac", "audio")
    fresh.set("seed", 11)
    first = fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "robot.png")
    fresh.script("document.querySelectorAll('.part .remove').forEach(e => e.click())")
    fresh.set("seed", 0)
    fresh.give(first, by="image")
    fresh.wait("#status", "robot.png are back")
    again = fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "again.png")
    assert read_picture(again) == read_picture(first)
    assert same(Image.open(again), Image.open(first))
    fresh.click("#tab-film")
    fresh.click("#draw")
    fresh.wait("#error", "add the sound itself")  # the picture stands for it, and does not hold it


def test_numbers_between_steps_and_beyond_sliders_come_back_as_they_are(fresh, starter, tmp_path):
    asked = {"seed": 0, "guidance_scale": 3.37, "prior_strength": 0.33, "prior_temperature": 0.123, "num_inference_steps": 2}
    drawn = starter(text="a robot", audio=SAMPLES / "cow.flac", weights=[1.7, 0.123], **asked)
    first = PictureSettings(drawn.request.picture(0), "starter", "")
    save_picture(drawn.images[0], tmp_path / "python.png", first)
    fresh.give(tmp_path / "python.png", by="image")
    fresh.wait("#status", "python.png are back")
    again = read_picture(fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "again.png"))
    assert again == read_picture(tmp_path / "python.png")


def test_a_number_that_the_browser_refuses_is_named_beside_the_button(fresh):
    fresh.set("seed", 1.5)
    fresh.write("a tree\n")
    assert fresh.wait("#error", "seed").text.startswith("Noise to start from (seed): ")
    assert fresh.script("return document.querySelector('#settings').open")
    fresh.set("seed", 0)
    fresh.set("size", 130)
    fresh.write("a tree\n")
    fresh.wait("#error", "Size in pixels: ")
    fresh.click("#tab-travel")  # has no size, and no mistake
    assert not fresh.all("#error")[0].text
    fresh.click("#draw")
    fresh.wait("#error", "two stops")
    fresh.set("size", "")
    fresh.script("document.querySelector('#settings').open = false")


def test_more_seeds_and_more_like_it_and_a_result_as_a_prompt(fresh):
    fresh.set("steps", 1)
    fresh.draws(lambda: fresh.write("a tree\n"))
    fresh.draws(lambda: fresh.click("#seeds"), 4)
    labels = [e.text for e in fresh.all("#strip button")][-4:]
    seeds = [int(label.split()[1]) for label in labels]
    assert seeds == list(range(seeds[0], seeds[0] + 4))
    found = read_picture(fresh.fetched(fresh.draws(lambda: fresh.click("#alike"), 4), "alike.png")).request
    assert [p.kind for p in found.prompts[0]] == ["text", "image"]
    drop = """const data = new DataTransfer(); document.querySelector('#strip li:last-child img').dispatchEvent(
    new DragEvent('dragstart', {dataTransfer: data, bubbles: true}));
    document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));"""
    fresh.script(drop)
    fresh.until(lambda: "picture-" in fresh.all("#parts")[0].text and fresh.all(".part .heard"), "the result as a part")


@pytest.mark.parametrize(
    ("of", "name", "value", "button", "said"),
    [
        ("navigator", "mediaDevices", "undefined", "#record", "https"),
        ("navigator.mediaDevices", "getUserMedia", "() => Promise.reject({name: 'NotAllowedError'})", "#record", "allow it"),
        ("navigator.mediaDevices", "getUserMedia", "() => Promise.reject({name: 'NotFoundError'})", "#draw", "was found"),
        ("window", "isSecureContext", "false", "#draw", "no Live"),
    ],
    ids=("http", "refused", "none", "Live over http"),
)
def test_why_nothing_can_be_heard_is_said(fresh, of, name, value, button, said):
    fresh.click("#tab-live")
    own = f"window.own = Object.getOwnPropertyDescriptor({of}, '{name}')"
    fresh.script(f"{own}; Object.defineProperty({of}, '{name}', {{value: {value}, configurable: true}})")
    fresh.script("""window.contexts = []; const Own = window.OwnContext ??= AudioContext;
    window.AudioContext = class extends Own { constructor() { super(); window.contexts.push(this); } }""")
    try:
        fresh.click(button)
        fresh.wait("#error", said)
        assert fresh.all("#draw")[0].text == "Start"
        assert fresh.script("return window.contexts.filter(context => context.state !== 'closed').length") == 0
    finally:
        fresh.script("window.AudioContext = window.OwnContext")
        fresh.script(f"delete {of}.{name}; if (window.own) Object.defineProperty({of}, '{name}', window.own)")


def test_a_sound_that_the_browser_cannot_play_is_said(fresh):
    add(fresh, SAMPLES / "cow.flac", "audio")
    fresh.click("#tab-live")
    fresh.script("window.play = HTMLMediaElement.prototype.play; HTMLMediaElement.prototype.play = () => Promise.reject('no')")
    try:
        fresh.click("#draw")
        fresh.wait("#error", "cannot play the sound")
        assert fresh.all("#draw")[0].text == "Start"
    finally:
        fresh.script("HTMLMediaElement.prototype.play = window.play")


def test_a_recording_is_a_part(fresh):
    fresh.click("#record")
    fresh.wait("#record", "stop")
    time.sleep(1.5)
    fresh.click("#record")
    assert "Understood as" in fresh.wait(".part .heard").text
    assert "recording.webm" in fresh.all("#parts")[0].text
    fresh.click("#record")
    fresh.wait("#record", "stop")
    time.sleep(1)
    found = read_picture(fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "recorded.png")).request
    assert [p.value for p in found.prompts[0]] == ["recording.webm"] * 2  # one was still under way


def test_no_second_recording_begins_while_the_browser_asks_for_the_microphone(fresh):
    fresh.script("""window.ask = navigator.mediaDevices.getUserMedia;
    navigator.mediaDevices.getUserMedia = () => new Promise((_, failed) => (window.refuse = failed))""")
    try:
        fresh.click("#record")
        assert not fresh.all("#record")[0].is_enabled()
        fresh.script("window.refuse({name: 'NotAllowedError'})")
        fresh.wait("#error", "allow it")
        assert fresh.all("#record")[0].is_enabled()
    finally:
        fresh.script("navigator.mediaDevices.getUserMedia = window.ask")


def test_a_file_that_is_still_being_read_counts(fresh):
    fresh.write("a robot")
    fresh.give(SAMPLES / "sheep.mp4", by="video")
    found = read_picture(fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "at-once.png")).request
    assert [p.value for p in found.prompts[0]] == ["a robot", "sheep.mp4"]


def test_one_damaged_file_of_several_does_not_lose_the_others(fresh, tmp_path):
    (tmp_path / "noise.flac").write_bytes(b"fLaC nothing" * 40)
    fresh.give(SAMPLES / "cow.flac", tmp_path / "noise.flac", SAMPLES / "train.flac")
    fresh.wait("#error", "noise.flac")
    fresh.until(lambda: all(name in fresh.all("#parts")[0].text for name in ("cow.flac", "train.flac")), "the others")
    assert "noise.flac" not in fresh.all("#parts")[0].text


def test_a_weight_that_counts_is_seen(fresh):
    fresh.write("a robot")
    add(fresh, SAMPLES / "cow.flac", "audio")
    code = """const e = document.querySelectorAll('.part .weight input')[0]; e.value = -1;
    e.dispatchEvent(new Event('input', {bubbles: true}))"""
    fresh.script(code)
    fresh.script("document.querySelectorAll('.part .remove')[1].click()")
    assert fresh.all(".weighted")
    fresh.click("#tab-travel")  # stops have none
    assert not fresh.all(".weighted")
    assert fresh.script("return document.querySelector('#tab-travel').checked")


def test_what_is_wrong_on_the_map_is_said_there(fresh):
    fresh.click("#tab-explore")
    fresh.write("", "#place-text")
    fresh.click("#placing button")
    assert fresh.wait("#map-near", "nothing to place").is_displayed()


def test_explore_says_why_it_does_not_come_and_comes_at_the_next_try(fresh):
    fresh.open()
    fresh.script("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('Failed'))")
    fresh.click("#tab-explore")
    assert fresh.wait("#explore", "the connection broke off").is_displayed()
    fresh.script("window.fetch = () => Promise.resolve(new Response('{}', {status: 503}))")
    fresh.click("#tab-create")
    fresh.click("#tab-explore")
    fresh.wait("#explore", "the server answers 503")
    fresh.script("window.fetch = window.real")
    fresh.click("#tab-create")
    fresh.click("#tab-explore")
    fresh.wait("#map a", "penguin")


def test_a_screen_reader_hears_stages_and_results_and_not_every_step(fresh):
    fresh.script("""window.heard = []; window.ears = new MutationObserver(() => {
      for (const e of document.querySelectorAll('[role=status], [aria-live]'))
        if (e.textContent && window.heard.at(-1) !== e.textContent) window.heard.push(e.textContent);
    });
    window.ears.observe(document.body, {childList: true, subtree: true, characterData: true})""")
    fresh.set("steps", 20)
    fresh.draws(lambda: fresh.write("a robot dog\n"))
    heard = fresh.script("window.ears.disconnect(); return window.heard")
    assert heard[-2] == "drawing"
    assert heard[-1].startswith("Drawn from a robot dog. left out")
    assert len(heard) <= 4
    assert len(fresh.all("[role=status]")) == 1


def test_a_reload_keeps_the_prompt_the_settings_and_the_results(fresh, served, monkeypatch):
    add(fresh, SAMPLES / "cow.flac", "audio")
    fresh.write("a robot")
    fresh.script("""const e = document.querySelectorAll('.part .weight input')[1]; e.value = 0.5;
    e.dispatchEvent(new Event('input', {bubbles: true}))""")
    fresh.set("steps", 1)
    fresh.set("seed", 7)
    kept = fresh.draws(lambda: fresh.click("#draw"))
    gone = fresh.draws(lambda: fresh.click("#draw"))
    fresh.click("#strip li:nth-last-child(2) button")
    Path(gone.split("file=")[1]).unlink()  # as an old one
    count, understood = fresh.results(), fresh.all("#understood")[0].text
    fresh.script("document.querySelector('#closed').checked = true")
    fresh.click("#tab-travel")
    fresh.driver.refresh()
    fresh.until(lambda: fresh.results() == count - 1, "the results")
    assert fresh.wait("#understood", understood)
    assert fresh.script("return document.querySelector('#download').href") == kept
    assert (
        fresh.script("return [document.querySelector('#tab-travel').checked, document.querySelector('#closed').checked]")
        == [True] * 2
    )
    assert "Understood as cow" in fresh.all(".part")[1].text
    fresh.click("#tab-create")
    again = fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "again.png")
    assert read_picture(again) == read_picture(fresh.fetched(kept, "kept.png"))
    fresh.click("#tab-film")
    fresh.draws(lambda: fresh.click("#draw"))  # the sound itself is still there
    count = fresh.results() - len(served.opening.answers)
    with monkeypatch.context() as patch:  # a server that has just started
        patch.setattr(served.opening, "answers", [])
        patch.setattr(served.opening, "done", False)
        fresh.driver.refresh()
        fresh.until(lambda: fresh.results() == count, "the results")
        time.sleep(1.6)  # in which the page asks twice more
        assert fresh.results() == count
    fresh.open()
    assert fresh.results() <= 5


def test_words_that_are_too_many_are_named_not_cut(fresh):
    fresh.write("a red car " * 51 + "\n")
    fresh.wait("#error", "at most 500")


def test_words_are_dropped_on_their_field_and_files_on_the_page(fresh):
    code = """const data = new DataTransfer();
    arguments[0] ? data.items.add(new File(['x'], 'x.png')) : data.setData('text/plain', 'a');
    return ['dragover', 'drop'].map(type => !document.querySelector('.words').dispatchEvent(
      new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true})))"""
    assert fresh.script(code, False) == [False, False]
    assert fresh.script(code, True) == [True, True]
    fresh.wait("#error", "x.png")


def test_a_result_says_what_it_was_drawn_from(fresh):
    fresh.set("steps", 1)
    fresh.draws(lambda: fresh.write("a tree\n"))
    assert fresh.all("#strip li:last-child button")[0].get_attribute("title") == "a tree"


def test_a_picture_that_edit_cannot_take_is_refused_before_it_is_painted(fresh, tmp_path):
    Image.new("L", (6400, 6400)).save(tmp_path / "huge.png")
    fresh.click("#tab-edit")
    before = fresh.results()
    fresh.give(tmp_path / "huge.png", by="open")
    fresh.wait("#error", "huge.png has 6400 x 6400 pixels: at most 40 megapixels")
    assert fresh.results() == before


def test_a_painted_part_changes_and_the_rest_stays(fresh):
    before = fresh.fetched(fresh.draws(lambda: fresh.write("a red car\n")), "before.png")
    fresh.click("#change")
    fresh.script("document.querySelector('#mask').focus()")
    fresh.set("brush", 96)
    fresh.driver.switch_to.active_element.send_keys(" ")  # by keyboard, in the middle
    spot = "return getComputedStyle(document.querySelector('#mask')).backgroundImage"
    assert fresh.script(spot) != "none"
    code = """const of = document.querySelector('#mask').getContext('2d').getImageData(118, 118, 20, 20).data;
    return new Set(Array.from({length: 400}, (_, i) => of.slice(4 * i, 4 * i + 4).join())).size"""
    assert fresh.script(code) > 1  # two colours, one of which is seen on any picture
    fresh.write("a cat")
    assert fresh.script(spot) == "none"  # on the picture it would be taken for a part of it
    fresh.set("steps", 50)
    fresh.click("#draw")
    fresh.wait(".progress", "drawing")
    fresh.click("#stop")
    fresh.wait("#status", "Stopped")  # what was painted stays
    fresh.set("steps", 2)
    after = fresh.fetched(fresh.draws(lambda: fresh.click("#draw")), "after.png")
    changed = (np.asarray(Image.open(before)) != np.asarray(Image.open(after))).any(2)
    assert changed[256, 256]
    assert not changed[:8].any()
    assert not changed[-8:].any()
    fresh.set("steps", 1)
    other = fresh.fetched(fresh.draws(lambda: fresh.click("#seeds"), 4), "other.png")  # of the same edit
    changed = (np.asarray(Image.open(before)) != np.asarray(Image.open(other))).any(2)
    assert changed[256, 256]
    assert not changed[:8].any()


def test_paint_is_taken_back_stroke_by_stroke(fresh):
    fresh.draws(lambda: fresh.write("a tree\n"))
    fresh.click("#change")
    painted = """const of = document.querySelector('#mask').getContext('2d').getImageData(0, 0, 256, 256).data;
    return of.reduce((sum, value, i) => sum + (i % 4 === 3 && value > 0), 0)"""
    mask = fresh.all("#mask")[0]
    drag = ActionChains(fresh.driver).move_to_element_with_offset(mask, -90, 0).click_and_hold().move_by_offset(60, 0)
    drag.release().perform()
    once = fresh.script(painted)
    mask.send_keys(" ")  # another, in the middle
    assert fresh.script(painted) > once > 0
    fresh.click("#undo")
    assert fresh.script(painted) == once
    mask.send_keys("\ue009z")  # Ctrl+Z
    assert fresh.script(painted) == 0
    fresh.click("#undo")  # nothing is left to be taken back


def test_live_follows_the_microphone_and_leaves_a_film(fresh):
    fresh.write("a robot")
    fresh.set("steps", 50)
    fresh.click("#draw")
    fresh.wait(".progress", "drawing")
    fresh.click("#tab-live")
    fresh.click("#draw")  # ends the drawing
    fresh.until(lambda: fresh.script("return window.liveStats?.pictures > 4"), "pictures")
    fresh.wait("#status", "Heard")
    fresh.script("const real = fetch; window.fetch = () => ((window.fetch = real), Promise.reject(new TypeError('Failed')))")
    fresh.wait("#error", "the connection broke off")
    fresh.until(lambda: not fresh.all("#error")[0].text, "pictures again")
    assert fresh.all("#live")[0].is_displayed()
    fresh.draws(lambda: fresh.click("#strip li button"))  # another result stops it, as the button does
    assert fresh.all("#picture")[0].is_displayed()
    assert fresh.all("#draw")[0].text == "Draw"
    fresh.click("#strip li:last-child button")
    film = fresh.script("return document.querySelector('#download').href")
    stats = fresh.script("return window.liveStats")
    assert stats["failures"] == 1
    assert film.startswith("blob:")
    with av.open(str(fresh.fetched(film, "live.webm"))) as container:
        assert {s.type for s in container.streams} == {"video", "audio"}


def test_a_way_has_a_timeline_and_three_forms(fresh, tmp_path):
    fresh.click("#tab-travel")
    assert not fresh.all(".weighted")
    fresh.write("a dog")
    add(fresh, SAMPLES / "sheep.mp4", "video")
    fresh.set("between", 2)
    fresh.draws(lambda: fresh.click("#draw"))
    assert [e.text for e in fresh.all(".keep a")] == ["GIF", "MP4", "WEBM"]
    assert len(fresh.all(".timeline button")) == 3
    fresh.click(".timeline button:last-child")
    fresh.until(lambda: abs(fresh.script("return document.querySelector('#film').currentTime") - 0.25) < 0.02, "the place")
    fresh.click(".part:last-child .remove")
    fresh.click("#draw")
    fresh.wait("#error", "two stops")
    assert len(fresh.all(".timeline button")) == 3  # the film is still there
    fresh.click("#tab-edit")
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "teal.png")
    fresh.give(tmp_path / "teal.png", by="open")
    fresh.wait("#strip [aria-current=true]", "teal.png")
    assert not fresh.all(".timeline")


def test_a_film_of_a_sound(fresh):
    fresh.click("#tab-film")
    add(fresh, SAMPLES / "chicken.flac", "audio")
    fresh.write("a robot")
    assert not fresh.all(".weighted")  # neither the sound nor what stays alone has a weight that would do something
    fresh.click("#tab-create")
    assert fresh.all(".weighted")
    fresh.click("#tab-film")
    fresh.set("rate", 2)
    path = fresh.draws(lambda: fresh.click("#draw"))
    tools = "return [...document.querySelectorAll('#tools > *')].filter(e => e.checkVisibility()).map(e => e.textContent)"
    assert fresh.script(tools) == ["Download"]
    fresh.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    code = "const e = document.querySelector('#status'); return e.scrollHeight - e.clientHeight"
    assert fresh.script(code) <= 0  # all its files are seen
    fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    fresh.click("#draw")
    fresh.until(lambda: fresh.all("#picture")[0].is_displayed(), "a preview")
    assert fresh.script(tools) == ["Download"]  # it is no result
    fresh.click("#stop")
    film = fresh.fetched(path, "film.mp4")
    with av.open(str(film)) as container:
        assert {s.type for s in container.streams} == {"video", "audio"}
    webm = fresh.fetched(fresh.all(".keep a")[2].get_attribute("href"), "film.webm")
    with av.open(str(webm)) as container:
        assert {s.type for s in container.streams} == {"video", "audio"}


def test_a_word_on_the_map_is_drawn_and_a_prompt_is_placed(fresh):
    fresh.write("my own words")
    fresh.click("#tab-explore")
    fresh.write("a pony", "#place-text")
    fresh.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    fresh.click("#placing button")
    box = fresh.wait("#map .spot") and fresh.script("return document.querySelector('#map circle').getBoundingClientRect()")
    fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert 0 < box["left"] < box["right"] < PHONE["width"]
    assert 0 < box["top"] < box["bottom"] < PHONE["height"]
    assert fresh.wait("#map .spot").text == "a pony"
    assert "horse" in fresh.wait("#map-near .bar").text
    assert len(fresh.all(".charts .bar")) > 5
    found = read_picture(fresh.fetched(fresh.draws(lambda: fresh.click("#map a", "penguin")), "penguin.png")).request
    assert found.prompts[0][0].value == "penguin"
    words = "return [...document.querySelectorAll('.part .words')].map(e => e.value)"
    fresh.click("#before")  # what was written is not lost
    assert fresh.script(words) == ["my own words"]
    fresh.click(".part .remove")
    fresh.click("#before")
    assert fresh.script(words) == ["my own words"]


def test_another_model_brings_its_own_steps_and_guidance(fresh):
    second = Model.of("starter, stable-unclip decoder", "starter", "stable-unclip")
    code = """const e = document.querySelector('#model'); e.value = arguments[0];
    e.dispatchEvent(new Event('change', {bubbles: true}))"""
    fresh.script(code, second.label)
    values = fresh.script("return ['steps', 'guidance'].map(n => document.getElementById(n).valueAsNumber)")
    fresh.script(code, "starter")
    assert values == [second.steps, second.guidance]


def test_stopping_and_mistakes_are_one_line_beside_the_button(fresh, tmp_path):
    fresh.set("steps", 50)
    fresh.set("pictures", 8)
    fresh.write("a tree\n")
    fresh.wait(".progress", "drawing")
    fresh.click("#stop")
    fresh.wait("#status", "Stopped")
    fresh.set("steps", 1)
    fresh.set("pictures", 1)
    fresh.draws(lambda: fresh.click("#draw"))
    (tmp_path / "noise.png").write_bytes(b"\x89PNG nothing" * 40)
    (tmp_path / "large.png").write_bytes(bytes(30_000_001))
    fresh.give(tmp_path / "noise.png", tmp_path / "large.png", by="image")
    said = fresh.wait("#error", "noise.png").text
    assert "/" not in said
    assert "large.png is too large: at most 30 MB" in said
    fresh.click("#tab-edit")
    before = fresh.results()
    fresh.give(tmp_path / "noise.png", by="open")
    fresh.wait("#error", "noise.png is not a picture")
    assert fresh.results() == before
    fresh.click("#tab-create")
    fresh.script("document.querySelectorAll('.part .remove').forEach(e => e.click())")
    fresh.click("#draw")
    fresh.wait("#error", "nothing to draw")


def test_what_was_lost_is_said_beside_the_part(fresh, tmp_path):
    from conftest import tone, write_wav

    add(fresh, SAMPLES / "cow.flac", "audio")
    fresh.give(write_wav(tmp_path / "silent.wav", 0 * tone(1, 16000), 16000))
    assert "silent.wav is silent" in fresh.wait(".part .notes", "silent").text


def test_the_arrow_keys_choose_a_tab(fresh):
    fresh.script("document.querySelector('#tab-create').focus()")
    fresh.driver.switch_to.active_element.send_keys("\ue014")  # right
    assert fresh.driver.switch_to.active_element.get_attribute("id") == "tab-edit"
    assert fresh.all("#draw")[0].text == "Change it"


@pytest.mark.parametrize("width", [500, 1280])
def test_it_opens_at_its_top(fresh, width):
    """With results enough that their strip lies below the screen, or is wider than it."""
    fresh.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**PHONE, "width": width, "height": 600, "mobile": False}
    )
    try:
        fresh.open()
        fresh.until(lambda: fresh.script("return document.querySelector('#picture').naturalWidth"), "a picture")
        fresh.until(lambda: len(fresh.all("#strip button")) >= 5, "the opening")
        assert fresh.script("return [scrollX, scrollY]") == [0, 0]
        assert fresh.script("return document.querySelector('h1').getBoundingClientRect().top") >= 0
        fresh.click("#strip li:last-child button")  # is brought into the strip's view, and the page stays
        assert fresh.script("return scrollY") == 0
        seen = """const strip = document.querySelector('#strip').getBoundingClientRect();
        return document.querySelector('#strip li:last-child').getBoundingClientRect().right <= strip.right + 1"""
        assert fresh.script(seen)
    finally:
        fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_login_form_refuses_and_lets_in(page, served):
    from unialign_gen.demo.server import open_page

    guarded = open_page(served.context, auth=[("ada", "x:y")], root_path=None, server_name=None, server_port=None)
    try:
        page.driver.get(guarded.url)
        page.write("ada", "#username")
        page.write("wrong", "#password")
        page.click("#draw")
        page.wait("#error", "not right")
        assert not page.all("#ask")
        page.write("x:y\n", "#password")  # Enter logs in
        page.wait("#tab-create")
        assert page.script("return fetch('page/explore').then(r => r.status)") == 200
        page.draws(lambda: page.write("a tree\n"))
    finally:
        page.driver.get("about:blank")  # the next test opens its own page
        guarded.page.close(verbose=False)


@pytest.fixture
def phone(fresh):
    fresh.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    fresh.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    yield fresh
    fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    fresh.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def in_view(page, css):
    """Whether all of an element is on the screen, and nothing lies over its middle."""
    code = """const found = document.querySelector(arguments[0]), box = found.getBoundingClientRect();
    const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return box.top >= -1 && box.bottom <= innerHeight + 1 && box.width > 100 && found.contains(over)"""
    return page.script(code, css)


def scrolled(page):
    """At the top, in the middle and at the end of the page."""
    for depth in (0, 0.5, 1):
        page.script("scrollTo(0, (document.documentElement.scrollHeight - innerHeight) * arguments[0])", depth)
        time.sleep(0.1)
        yield depth


@pytest.mark.parametrize("settings", [True, False])
def test_the_button_and_what_is_wrong_stay_in_view(fresh, settings):
    """With the settings open they lie far below the screen, without them the results are longer than the form."""
    view = {**PHONE, "width": 1280, "height": 700, "mobile": False}
    fresh.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
    fresh.script("document.querySelector('#settings').open = arguments[0]", settings)
    try:
        fresh.click("#draw")
        fresh.wait("#error", "nothing to draw")
        for depth in scrolled(fresh):
            assert in_view(fresh, "#draw"), depth
            assert in_view(fresh, "#error"), depth
        assert fresh.script("return document.documentElement.scrollHeight") > 700
        assert fresh.script("return document.documentElement.scrollWidth") <= 1280
    finally:
        fresh.script("document.querySelector('#settings').open = false")
        fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_the_picture_and_the_button_never_leave_the_screen(phone):
    phone.script("document.querySelector('#settings').open = true")
    for mode in MODES:
        phone.script("document.querySelector(arguments[0]).click()", f"#tab-{mode}")
        assert phone.script("return document.documentElement.scrollWidth") <= PHONE["width"]
        for depth in scrolled(phone) if mode != "explore" else ():
            assert in_view(phone, "#screen"), (mode, depth)
            assert in_view(phone, "#draw"), (mode, depth)
    back = phone.script("return getComputedStyle(document.body).backgroundColor")
    assert max(int(v) for v in back[4:-1].split(",")) < 60


def test_a_long_name_does_not_widen_a_phone(phone, tmp_path):
    long = tmp_path / ("a_recording_" * 12 + ".flac")
    long.write_bytes((SAMPLES / "cow.flac").read_bytes())
    phone.give(long)
    phone.wait(".part .heard")
    assert phone.script("return document.documentElement.scrollWidth") <= PHONE["width"]


def faults(page):
    if not AXE.is_file():
        pytest.skip("axe-core is not here: npm install --no-save axe-core")
    page.script(AXE.read_text())
    code = """const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations
    .filter(v => ['serious', 'critical'].includes(v.impact)).map(v => [v.id, v.nodes[0].html])))"""
    return page.driver.execute_async_script(code)


def test_axe_finds_no_serious_fault(fresh):
    fresh.script("document.querySelector('#settings').open = true")
    for mode in MODES:
        fresh.click(f"#tab-{mode}")
        assert faults(fresh) == [], mode


def test_axe_finds_no_serious_fault_on_a_dark_phone(phone):
    assert faults(phone) == []


def test_app_py_is_the_same_page():
    assert "serve()" in (ROOT / "app.py").read_text()


def test_what_a_picture_lacks_stands_beside_it_also_on_a_small_window(fresh):
    fresh.draws(lambda: fresh.write("a robot dog\n"))
    told = fresh.wait("#told .notes", "robot")
    assert "of 'a robot dog' 'robot' may be missing: it is drawn as dog" in told.text
    fresh.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert fresh.script("return document.querySelector('#told').getBoundingClientRect().bottom < innerHeight")
    finally:
        fresh.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    fresh.set("steps", 50)
    fresh.click("#draw")
    fresh.until(lambda: fresh.all("#picture")[0].get_attribute("alt") == "Preview", "a preview")
    assert not fresh.all("#told .notes")  # they are of the picture before
    fresh.click("#stop")
    assert fresh.wait("#told .notes", "robot")
    fresh.click("#tab-live")
    fresh.click("#draw")
    fresh.until(lambda: fresh.all("#live")[0].is_displayed(), "Live")
    assert not fresh.all("#told .notes")
    fresh.click("#tab-create")  # ends it
    fresh.until(lambda: not fresh.all("#live")[0].is_displayed(), "the end of Live")
    fresh.click("#strip li:nth-child(2) button")
    assert not fresh.all("#told .notes")
