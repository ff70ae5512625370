"""The metrics file: what a kill in mid-line costs."""

from pathlib import Path

from runtime.metrics import MetricsLog, read_metrics


def test_a_line_cut_by_a_kill_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "deep/metrics.jsonl"
    MetricsLog(path).write(step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:17])
    log = MetricsLog(path)
    log.write(step=2)
    log.write(step=3, name="Größe")
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert path.read_bytes().startswith(whole + whole[:17] + b"\n{")
    assert len(path.read_bytes().splitlines()) == 4, "no empty lines"
