"""The page in a browser: it fits a phone, its pictures zoom by mouse, finger and key.

Pictures of it are kept in the folder that TEST_ARTEFACTS names.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from report.config import ReportConfig
from report.page import render_page
from runtime.images import decode_png
from runtime.settings import load_run
from tests.debian import why_missing
from tests.report.browser import Browser, browsing

DESKTOP = {"width_px": 1280, "height_px": 900, "is_phone": False}
PHONE = {"width_px": 360, "height_px": 740, "is_phone": True}
# photographs of 1024 px: larger than the frame, so that 1:1 lies beyond "whole"
LARGE = """(() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1024, height: 1024});
  const brush = canvas.getContext("2d");
  document.querySelectorAll(".pair img").forEach((image) => {
    brush.imageSmoothingEnabled = false;
    brush.drawImage(image, 0, 0, 1024, 1024);
    image.src = canvas.toDataURL();
  });
})()"""
STATE = """(() => {
  const box = (name) => document.querySelector(name).getBoundingClientRect();
  const [frame, image] = [box(".stage-view"), box(".over img")];
  return {
    frame: [frame.x, frame.y, frame.width], zoom: image.width / 1024 * devicePixelRatio,
    x: image.x - frame.x, y: image.y - frame.y,
    cut: +document.querySelector("dialog input").value,
    shown: document.querySelector(".caption").textContent.split(":")[0],
    isOpen: document.querySelector("dialog").open,
    level: document.querySelector(".level").textContent,
  };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium-browser") or "chromium"
    reason = why_missing((program,), ("chromium",))
    if reason is not None:
        pytest.skip(reason)
    with browsing(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(load_run(finished), ReportConfig()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("TEST_ARTEFACTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_viewer(browser: Browser, page: Path, **size: Any) -> tuple[float, float, float]:
    """Open the first pair, with large pictures; returns the frame's corner and side."""
    browser.open(page, **size)
    browser.value(LARGE)
    browser.value("document.querySelector('.pair').click()")
    x, y, side = browser.value(STATE)["frame"]
    return x, y, side


@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_the_page_fits_its_width(
    browser: Browser, page: Path, pictures: Path, name: str, size: dict[str, Any]
) -> None:
    browser.open(page, **size)
    browser.value("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    assert browser.value("innerWidth") == size["width_px"]
    sides = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert browser.value(sides) == [size["width_px"]] * 2
    lost = "[...document.querySelectorAll('main img')].filter((i) => !i.naturalWidth).length"
    assert browser.value(lost) == 0
    browser.open(page, **size)
    browser.picture(pictures / f"report-{name}.png", is_whole=True)
    image = decode_png((pictures / f"report-{name}.png").read_bytes(), where=name)
    assert image.shape[1] == size["width_px"] and image.std() > 10
    open_viewer(browser, page, **size)
    assert browser.value("document.querySelector('dialog').scrollWidth") <= size["width_px"]
    assert browser.value(sides) == [size["width_px"]] * 2
    browser.picture(pictures / f"report-{name}-viewer.png")


def test_the_main_tables_need_no_sideways_scrolling_on_a_phone(
    browser: Browser, page: Path
) -> None:
    browser.open(page, **PHONE)
    for part in ("#stages", "#labels", "#accuracy"):
        scrolled = f"document.querySelector('{part} .scroll')"
        assert browser.value(f"{scrolled}.scrollWidth - {scrolled}.clientWidth") == 0, part
    texts = "[...document.querySelectorAll('#time svg text')]"
    heights = browser.value(f"{texts}.map((text) => text.getBoundingClientRect().height)")
    assert min(heights) > 10


def test_the_mouse_compares_zooms_and_moves(browser: Browser, page: Path, pictures: Path) -> None:
    x, y, side = open_viewer(browser, page, **DESKTOP)
    whole = browser.value(STATE)
    assert whole["zoom"] == pytest.approx(side / 1024) and whole["cut"] == 50
    at = (x + 0.8 * side, y + 0.3 * side)
    browser.drag(at, (x + 0.7 * side, y + 0.3 * side))
    assert browser.value(STATE)["cut"] == pytest.approx(70, abs=1)
    assert browser.value(STATE)["zoom"] == whole["zoom"], "a drag is no click"

    browser.drag(at)
    near = browser.value(STATE)
    assert near["zoom"] == pytest.approx(1) and near["level"] == "100 %"
    # the place that was clicked stays under the pointer
    assert 0.8 * side - near["x"] == pytest.approx(0.8 * 1024, abs=2)
    assert 0.3 * side - near["y"] == pytest.approx(0.3 * 1024, abs=2)
    browser.drag(at, (at[0] + 40, at[1] + 30))
    moved = browser.value(STATE)
    assert (moved["x"] - near["x"], moved["y"] - near["y"]) == pytest.approx((40, 30), abs=1)
    browser.drag((x + 0.7 * side, at[1]), (x + 0.4 * side, at[1]))
    assert browser.value(STATE)["cut"] == pytest.approx(40, abs=1), "the line moves also when near"
    browser.picture(pictures / "report-desktop-zoomed.png")

    browser.mouse("mouseWheel", *at, deltaX=0, deltaY=-100)
    nearer = browser.value(STATE)["zoom"]
    assert nearer == pytest.approx(1.4, abs=0.02), "beyond 1:1"
    for _ in range(8):
        browser.mouse("mouseWheel", *at, deltaX=0, deltaY=100)
    back = browser.value(STATE)
    assert (back["zoom"], back["x"], back["y"]) == (whole["zoom"], 0, 0)
    browser.drag(at)
    browser.drag(at)
    assert browser.value(STATE)["zoom"] == pytest.approx(2)
    browser.drag(at)
    assert browser.value(STATE)["zoom"] == whole["zoom"]


def test_keys_do_what_the_mouse_does(browser: Browser, page: Path) -> None:
    open_viewer(browser, page, **DESKTOP)
    first = browser.value(STATE)
    browser.key("1")
    assert browser.value(STATE)["zoom"] == pytest.approx(1)
    browser.key("+")
    assert browser.value(STATE)["zoom"] == pytest.approx(1.5)
    before = browser.value(STATE)
    browser.key("ArrowRight", has_shift=True)
    browser.key("ArrowUp", has_shift=True)
    after = browser.value(STATE)
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((-60, 60))
    assert after["shown"] == first["shown"]
    browser.key("-")
    browser.key("ArrowUp")
    assert browser.value(STATE)["cut"] == 52
    browser.key("ArrowRight")
    second = browser.value(STATE)
    assert second["shown"] != first["shown"] and second["zoom"] == first["zoom"]
    browser.key("ArrowLeft")
    assert browser.value(STATE)["shown"] == first["shown"]
    browser.key("1")
    browser.key("0")
    assert browser.value(STATE)["zoom"] == first["zoom"]
    browser.value("document.querySelector('.tools [data-does=in]').click()")
    assert browser.value(STATE)["zoom"] == pytest.approx(1.5 * first["zoom"])
    browser.value("document.querySelector('.tools [data-does=close]').click()")
    assert not browser.value(STATE)["isOpen"]
    browser.key("ArrowRight")
    assert not browser.value(STATE)["isOpen"], "keys outside the viewer are the page's"


def test_fingers_swipe_pinch_tap_and_move(browser: Browser, page: Path, pictures: Path) -> None:
    x, y, side = open_viewer(browser, page, **PHONE)
    first = browser.value(STATE)
    right, left, middle = x + 0.8 * side, x + 0.2 * side, y + 0.5 * side
    browser.touch([(right, middle)], [(right - 40, middle)], [(right - 90, middle)])
    second = browser.value(STATE)
    assert second["shown"] != first["shown"], "a swipe to the left shows the next pair"
    browser.touch([(left, middle)], [(left + 90, middle)])
    assert browser.value(STATE)["shown"] == first["shown"]
    centre = x + 0.5 * side
    browser.touch([(centre, middle)], [(centre + 60, middle)])
    assert browser.value(STATE)["cut"] == pytest.approx(50 + 6000 / side, abs=1)

    fingers = [(centre - 30, middle), (centre + 30, middle)]
    browser.touch(fingers, *([(centre - d, middle), (centre + d, middle)] for d in (60, 90, 120)))
    pinched = browser.value(STATE)
    assert pinched["zoom"] == pytest.approx(4 * first["zoom"], rel=0.02)
    assert pinched["x"] == pytest.approx(side / 2 - 4 * side / 2, abs=4), "about its middle"
    browser.picture(pictures / "report-phone-zoomed.png")
    browser.touch([(left, middle)], [(left + 20, middle)], [(left + 50, middle)])
    moved = browser.value(STATE)
    assert moved["x"] - pinched["x"] == pytest.approx(50, abs=1)
    assert moved["shown"] == first["shown"], "no swipe while zoomed in"
    browser.key("0")
    browser.touch([(right, middle)])
    assert browser.value(STATE)["zoom"] == pytest.approx(2), "1:1 is about whole on this screen"
