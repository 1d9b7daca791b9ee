"""The page in headless Chromium: it loads, plays, moves, mutes, and asks no network for anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meloformer.midi.score import DRUMS, Score
from meloformer.render.page import write_page
from tests.render.pieces import band

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
TAP = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const tap = new AnalyserNode(this.context, { fftSize: 8192 });
    connect.call(this, tap);
    window.audio = this.context;
    window.loudness = () => {
      const samples = new Float32Array(8192);
      tap.getFloatTimeDomainData(samples);
      return samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    };
  }
  return connect.call(this, target, ...rest);
};
"""
"""Listens to what goes to the loudspeaker."""
SHOWN_X = "new DOMMatrix(getComputedStyle(document.getElementById('cursor')).transform).e"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium; on Debian: apt-get install chromium")
    with api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """A function that shows a piece; at the end there was no error, and no request but for the page."""
    heard: list[str] = []
    requests: list[str] = []
    contexts = []

    def show(score: Score, *, title: str = "song", **options: Any) -> Any:
        path = tmp_path / "song.html"
        write_page(score, path, title=title)
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 650}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.add_init_script(TAP)
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert heard == []
    assert requests == [(tmp_path / "song.html").as_uri()] * len(contexts)


def place(page: Any) -> str:
    return page.eval_on_selector("#place", "element => element.value")


def wait_until(page: Any, condition: str) -> None:
    """Wait some seconds for a condition; playwright's own way is forbidden by the page's security policy."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def wait_for_sound(page: Any) -> None:
    wait_until(page, "window.loudness !== undefined && window.loudness() > 0.01")


def wait_for_silence(page: Any) -> None:
    wait_until(page, "window.loudness() < 0.001")


def test_play_sounds_and_moves_the_cursor_and_pause_stops_both(open_page: Open) -> None:
    page = open_page(band())
    at_start = page.evaluate(SHOWN_X)
    assert place(page) == "bar 1 of 4, 0:00"
    page.click("#play")
    wait_for_sound(page)
    wait_until(page, f"{SHOWN_X} > {at_start + 20}")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.click("#play")
    wait_for_silence(page)
    paused = page.evaluate(SHOWN_X)
    page.wait_for_timeout(200)
    assert page.evaluate(SHOWN_X) == paused > at_start
    page.click("#stop")
    assert page.evaluate(SHOWN_X) == at_start


def test_mute_and_solo_change_what_is_heard(open_page: Open) -> None:
    page = open_page(band(num_bars=16, programs=(0, DRUMS)))
    page.click("#play")
    wait_for_sound(page)
    page.click("[aria-label='Mute Acoustic Grand Piano']")
    wait_for_sound(page)
    page.click("[aria-label='Mute Drums']")
    wait_for_silence(page)
    assert page.get_attribute("[aria-label='Mute Drums']", "aria-pressed") == "true"
    page.click("[aria-label='Solo Drums']")
    wait_for_sound(page)
    assert page.locator("#tracks li.quiet .name").all_inner_texts() == ["Acoustic Grand Piano"]


def test_a_click_on_the_roll_and_the_keys_move_the_cursor(open_page: Open) -> None:
    page = open_page(band())
    box = page.locator("#roll").bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 200)
    assert page.evaluate(SHOWN_X) == pytest.approx(0.6 * box["width"], abs=2)
    assert place(page) != "bar 1 of 4, 0:00"
    page.keyboard.press("Home")
    assert place(page) == "bar 1 of 4, 0:00"
    page.keyboard.press("ArrowRight")
    assert place(page) == "bar 2 of 4, 0:02"
    page.keyboard.press(" ")
    page.wait_for_selector("#play[aria-label=Pause]")
    page.keyboard.press(" ")
    page.wait_for_selector("#play[aria-label=Play]")


def test_the_tempo_slider_makes_the_music_faster_and_the_end_is_reached(open_page: Open) -> None:
    page = open_page(band(num_bars=2))
    page.locator("#tempo").fill("200")
    assert page.eval_on_selector("#bpm", "element => element.value") == "240 bpm"
    page.click("#play")
    page.wait_for_selector("#play[aria-label=Pause]")
    page.wait_for_selector("#play[aria-label=Play]", timeout=15_000)
    assert 1.9 < page.evaluate("window.audio.currentTime") < 3.5  # four seconds at the written tempo
    assert place(page) == "bar 2 of 2, 0:04"


def test_a_long_piece_scrolls_with_the_cursor(open_page: Open) -> None:
    page = open_page(band(num_bars=64))
    page.locator("#position").fill("900")
    assert place(page).startswith("bar 58 of 64")
    left = page.evaluate("document.getElementById('scroll').scrollLeft")
    assert left > 0
    view = page.evaluate("document.getElementById('scroll').clientWidth")
    assert 0 < page.evaluate(SHOWN_X) - left < view
    page.locator("#zoom").fill("0")  # the whole piece
    assert page.evaluate("document.getElementById('paper').clientWidth") <= view + 1


def test_dark_narrow_and_hostile_pages_load_too(open_page: Open) -> None:
    title = "</script><script>window.hacked = true</script>"
    for options in ({"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 640}}):
        page = open_page(band(programs=(*range(0, 96, 8), DRUMS)), title=title, **options)
        assert page.inner_text("h1") == title
        assert page.evaluate("window.hacked === undefined")
        assert page.locator("#tracks li").count() == 13
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_every_control_has_a_name(open_page: Open) -> None:
    page = open_page(band())
    for control in page.locator("button, input").all():
        name = control.get_attribute("aria-label") or control.evaluate("element => element.labels[0]?.innerText")
        assert name
        assert name.strip()
