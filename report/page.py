"""Gather everything that the report shows, and fill the page's template."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import yaml
from markupsafe import Markup

from report import svg
from report.agreement import agreement
from report.config import ReportConfig
from report.curves import Chart, trainings
from report.environment import environment
from report.labels import Parameter, columns_by, counts_of, labelled_tests, parameters
from report.pairs import Pair, data_uri, draw_pairs
from report.stages import StageCounts, stage_counts
from report.tables import accuracy_of_ours, figures, results
from report.timings import duration, sampling, sampling_attempts, sampling_devices, timings
from runtime.images import decode_png
from runtime.settings import RunSettings

_ALPHA, _TIMES = "\N{GREEK SMALL LETTER ALPHA}", "\N{MULTIPLICATION SIGN}"
_TEMPLATES = Path(__file__).parent / "templates"
_SPLITS = {"train": 0, "val": 1, "test": 2}
_MAIN_PARAMETERS = ("steps", "level", "init", "is_degraded", "upscale")

_PARAMETER_WORDS = {
    "degraded": "degraded input", "init": "initial noise", "k": "number of the image",
    "level": "noise level", "upscale": "enlargement of the input",
}  # fmt: skip
_TIES = {
    "drop": "ties get no label", "similar": "ties count as similar",
    "dawid_skene": "ties are resolved with a Dawid-Skene model",
}  # fmt: skip


def render_page(run: RunSettings, settings: ReportConfig) -> str:
    """Return the whole report as one HTML page that loads nothing from elsewhere."""
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page.filters["short"] = svg.number
    page.filters["duration"] = duration
    template = page.get_template("page.html")
    return template.render(
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
        **page_values(run, settings),
    )


def page_values(run: RunSettings, settings: ReportConfig) -> dict[str, Any]:
    """Gather the values of the template; what a run has not made yet is left empty."""
    root = run.root
    tests = labelled_tests(root)
    stages = stage_counts(run)
    found = parameters(tests)
    main = [item for item in found if item.name in _MAIN_PARAMETERS]
    attempts = sampling_attempts(run)
    sampled = sampling(attempts)
    times = timings(run, sampled)
    about = agreement(root)
    return {
        "title": settings.title or str(run.values.get("run", root.name)),
        "notes": settings.notes,
        "is_synthetic": bool(tests.height and tests["is_synthetic"].any()),
        "tiles": _tiles(tests, stages, about, root),
        "stages": stages,
        "max_rows": settings.max_rejected_rows,
        "counts": counts_of(tests),
        "label_bar": _markup(svg.stacked_bar(counts_of(tests), label="labels of all images")),
        "splits": _splits(tests),
        "agreement": about,
        "ties": _TIES,
        "parameters": [_shown(item) for item in sorted(main, key=_main_order)],
        "more_parameters": [_shown(item) for item in found if item not in main],
        "gallery": _gallery(run, tests, settings),
        "trainings": [
            {
                "name": training.name,
                "main": [_curve(chart) for chart in training.charts if chart.is_main],
                "more": [_curve(chart) for chart in training.charts if not chart.is_main],
                "sheets": [_sheet(path, settings) for path in training.sheets],
            }
            for training in trainings(run)
        ],
        "tables": results(root),
        "figures": figures(root),
        "timings": times,
        "devices": sampling_devices(attempts),
        "sampling": sampled,
        "timing_bars": _timing_bars(times),
        "total_s": sum(timing.wall_s for timing in times),
        "device_hours": sum(timing.device_hours for timing in times),
        "config": _config(run),
        "environment": environment(),
    }


def _markup(text: str) -> Markup:
    """Mark a chart's text as safe: `svg` escapes every name that it writes."""
    return Markup(text)


def _tiles(
    tests: pl.DataFrame, stages: Sequence[StageCounts], about: Mapping[str, Any], root: Path
) -> list[tuple[str, str]]:
    """The few numbers at the top of the page."""
    made = {stage.name: stage.made for stage in stages}
    tiles = []
    for text, stage in (("reference crops", "crop run"), ("test images", "enhancer sample")):
        flow = made.get(stage)
        if flow:
            tiles.append((svg.number(flow[0]), text))
    if tests.height:
        tiles.append((svg.number(tests.height), "labelled images"))
    if about.get("alpha"):
        tiles.append((f"{about['alpha']['value']:.2f}", f"Krippendorff's {_ALPHA}"))
    found = accuracy_of_ours(root)
    if found:
        interval = f", interval {found.interval}" if found.interval else ""
        tiles.append((found.percent, f"A-FINE accuracy ({found.pairs} pairs{interval})"))
    return tiles


def _splits(tests: pl.DataFrame) -> list[dict[str, Any]]:
    if "split" not in tests.columns or not tests.height:
        return []
    columns = sorted(columns_by(tests, "split"), key=lambda column: _SPLITS.get(column.name, 9))
    return [
        {
            "name": column.name,
            "references": tests.filter(pl.col("split") == column.name)["crop_id"].n_unique(),
            "counts": column.counts,
            "bar": _markup(svg.stacked_bar(column.counts, label=f"labels of {column.name}")),
        }
        for column in columns
    ]


def _main_order(item: Parameter) -> int:
    return _MAIN_PARAMETERS.index(item.name)


def _shown(item: Parameter) -> dict[str, Any]:
    words = item.name.removeprefix("is_").removeprefix("degradation.").replace("_", " ")
    words = words.replace("stages ", "stage ").replace(".", ", ")
    return {
        "name": _PARAMETER_WORDS.get(words, words),
        "n": item.n,
        "rho": item.rank_correlation,
        "chart": _markup(svg.stacked_columns(item.columns, label=f"label against {words}")),
    }


def _gallery(
    run: RunSettings, tests: pl.DataFrame, settings: ReportConfig
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {"worse": [], "similar": [], "better": []}
    for pair in draw_pairs(run.root, tests, settings.pairs_per_label, run.seed):
        groups[pair.label].append(_shown_pair(pair, settings))
    return {name: pairs for name, pairs in groups.items() if pairs}


def _shown_pair(pair: Pair, settings: ReportConfig) -> dict[str, Any]:
    row = pair.row
    votes = f"{row['n_worse']} worse, {row['n_similar']} similar, {row['n_better']} better"
    facts = [f"{row['steps']} steps", f"init {row['init']}"]
    if row.get("level") is not None:
        facts.append(f"level {row['level']}")
    facts.append("degraded input" if row.get("is_degraded") else "clean input")
    if (row.get("upscale") or 1) != 1:
        facts.append(f"enlarged {_TIMES}{row['upscale']:g}")
    reference, test = (
        data_uri(
            image, max_px=settings.max_image_px, image_format=settings.image_format,
            quality=settings.image_quality,
        )
        for image in (pair.reference_u8, pair.test_u8)
    )  # fmt: skip
    return {
        "id": pair.test_id, "votes": votes, "facts": ", ".join(facts),
        "reference": reference, "test": test,
    }  # fmt: skip


def _sheet(path: Path, settings: ReportConfig) -> dict[str, str]:
    """Return a picture of validation images, with the step that it was drawn at."""
    step = int(path.stem.rpartition("-")[2])
    image_u8 = decode_png(path.read_bytes(), where=str(path))
    return {
        "name": f"iteration {step:,}",
        "uri": data_uri(
            image_u8,
            max_px=2 * settings.max_image_px,
            image_format=settings.image_format,
            quality=settings.image_quality,
        ),
    }


def _curve(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "legend": [(line.name, line.style) for line in chart.lines if not line.is_faint],
        "chart": _markup(svg.lines(chart.lines, label=chart.title, x_name=chart.x_name)),
    }


def _timing_bars(times: Sequence[Any]) -> Markup:
    rows = [(t.rule.replace("_", " "), t.wall_s, duration(t.wall_s)) for t in times]
    return _markup(svg.bars(rows, label="wall-clock time of each step"))


def _config(run: RunSettings) -> list[tuple[str, str]]:
    """The resolved configuration as YAML: plain values such as the seed first, then sections."""
    sections = {k: v for k, v in run.values.items() if isinstance(v, (Mapping, list))}
    plain = {k: v for k, v in run.values.items() if k not in sections}
    return [
        (name, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=88).strip())
        for name, value in {"run": plain, **sections}.items()
        if value
    ]
