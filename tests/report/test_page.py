"""The page: self-contained, complete, honest about simulated labels, and readable when empty."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from report.__main__ import main
from report.config import ReportConfig
from report.gallery import write_gallery
from report.labels import labelled_tests
from report.page import render_page
from report.pairs import draw_pairs
from report.write import write_report
from runtime.atomic import write_json
from runtime.errors import DataError
from runtime.images import decode_png
from runtime.settings import load_run

_VOID = {"meta", "img", "input", "br", "hr", "link"}


class _Tags(HTMLParser):
    """Collects what a page links to, and complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        self.ids.add(values.get("id") or "")
        self.images += tag == "img"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return render_page(load_run(finished), ReportConfig())


def test_page_loads_nothing_from_elsewhere(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert {address[1:] for address in tags.addresses if address.startswith("#")} <= tags.ids
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", page)


def test_page_shows_every_part(page: str) -> None:
    shown = (
        "SYNTHETIC LABELS", "Krippendorff", "steps", "noise level", "A-FINE (Ours)", "76.6",
        "unreadable", "device-hours", "diffiqa-released", "low agreement",
        "iteration 50", "iteration 400", "seed: 7",
    )  # fmt: skip
    for text in shown:
        assert text in page, text


def test_gallery_has_pairs_of_each_label(page: str) -> None:
    for label in ("worse", "similar", "better"):
        assert page.count(f'data-label="{label}"') == 9


def test_no_banner_for_peoples_labels(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished.parent, tmp_path / "study")
    path = root / "annotations/labels.parquet"
    pl.read_parquet(path).with_columns(is_synthetic=False).write_parquet(path)
    page = render_page(load_run(root / "config.resolved.json"), ReportConfig())
    assert "SYNTHETIC LABELS" not in page


def test_an_empty_run_has_a_readable_page(tmp_path: Path) -> None:
    config = tmp_path / "new/config.resolved.json"
    write_json(config, {"run": "new", "seed": 0, "report": {}})
    page = render_page(load_run(config), ReportConfig())
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert page.count('class="empty"') == 7


def test_text_from_data_is_escaped(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished.parent, tmp_path / "study")
    manifest = json.loads((root / "crops/manifest.json").read_text())
    manifest["rejected"][0]["key"] = "<img src=x onerror=alert(1)>.jpg"
    (root / "crops/manifest.json").write_text(json.dumps(manifest))
    page = render_page(
        load_run(root / "config.resolved.json"), ReportConfig(notes="<b>5 > 3</b>", title="a & b")
    )
    assert "<img src=x" not in page
    assert "<b>5" not in page
    assert "<h1>a &amp; b</h1>" in page


def test_pairs_are_the_same_every_time_and_spread_over_photographs(finished: Path) -> None:
    tests = labelled_tests(finished.parent)
    pairs = list(draw_pairs(finished.parent, tests, 6, 7))
    assert [p.test_id for p in pairs] == [
        p.test_id for p in draw_pairs(finished.parent, tests.reverse(), 6, 7)
    ]
    worse = [p.row["photo_id"] for p in pairs if p.label == "worse"]
    assert len(set(worse)) == 6, "six photographs before the second pair of any"


def test_missing_pixels_leave_an_empty_gallery(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished.parent, tmp_path / "study")
    shutil.rmtree(root / "samples")
    assert list(draw_pairs(root, labelled_tests(root), 2, 0)) == []


def test_report_is_written_once_and_again_when_inputs_change(
    finished: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(finished.parent, tmp_path / "study")
    run = load_run(root / "config.resolved.json")
    write_report(run)
    first = (root / "report.html").stat().st_mtime_ns
    write_report(run)
    assert (root / "report.html").stat().st_mtime_ns == first
    manifest = root / "plan.manifest.json"
    manifest.write_text(manifest.read_text().replace("72", "73"))
    write_report(run, replace=True)
    assert (root / "report.html").stat().st_mtime_ns > first
    assert not (root / ".report.state").exists()


def test_dry_run_writes_nothing(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished.parent, tmp_path / "study")
    write_report(load_run(root / "config.resolved.json"), dry_run=True)
    assert not (root / "report.html").exists()


def test_gallery_picture(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery.png"
    write_gallery(load_run(finished), out, pairs=2, size_px=64)
    image = decode_png(out.read_bytes(), where=str(out))
    assert image.shape[1] == 2 * 24 + 2 * 130 + 14
    assert image.std() > 20


def test_command_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shutil.copytree(finished.parent, tmp_path / "study")
    config = str(root / "config.resolved.json")
    assert main(["write", "--config", config, "--log", str(tmp_path / "log.txt")]) == 0
    assert main(["write", "--config", config]) == 0
    assert main(["write", "--config", str(tmp_path / "none.json")]) == 2
    assert (
        main(["gallery", "--config", config, "--out", str(tmp_path / "g.png"), "--pairs", "0"]) == 2
    )
    assert "report write: done" in (tmp_path / "log.txt").read_text()
    with pytest.raises(SystemExit):
        main(["write", "--help"])
    assert "results/demo/config.resolved.json" in capsys.readouterr().out


def test_gallery_needs_labels(tmp_path: Path) -> None:
    config = tmp_path / "new/config.resolved.json"
    write_json(config, {"run": "new", "seed": 0})
    with pytest.raises(DataError, match="no labelled images"):
        write_gallery(load_run(config), tmp_path / "g.png")
