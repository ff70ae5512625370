"""`report write`: `report.html` of a run."""

from report.config import REPORT, ReportConfig
from report.page import render_page
from report.stages import manifest_paths, stage_counts
from runtime.atomic import write_text
from runtime.settings import RunSettings
from runtime.stage import open_stage


def write_report(run: RunSettings, *, replace: bool = False, dry_run: bool = False) -> None:
    """Write the report of what the run has made so far.

    Args:
        run: the resolved configuration.
        replace: discard a report of an earlier state.
        dry_run: gather and render, write nothing.
    """
    settings = run.section("report", ReportConfig)
    if dry_run:
        render_page(run, settings)
        return
    stage = open_stage(
        REPORT,
        run,
        manifest=run.root / "report.manifest.json",
        state=run.root / ".report.state",
        inputs=manifest_paths(run),
        replace=replace,
    )
    if stage.is_complete:
        return
    page = run.root / "report.html"
    write_text(page, render_page(run, settings))
    # no digest of the page: it shows times, which differ from run to run
    stage.finish(counts={"stages": len(stage_counts(run))}, files=[])
    stage.clear_state()
