"""The root configuration: read once, typos refused at every level, generated files in sync."""

from pathlib import Path

import pytest

from runtime.errors import ConfigError
from workflow import stages
from workflow.__main__ import schema_text
from workflow.config import RunConfig, load_config
from workflow.reference import config_reference

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "configs/demo.yaml"


@pytest.mark.parametrize("name", ["demo.yaml", "diffiqa.yaml", "own.yaml"])
def test_shipped_configurations_are_valid_and_explain_themselves(name):
    assert load_config([ROOT / "configs" / name]).run == name.removesuffix(".yaml")
    header = (ROOT / "configs" / name).read_text(encoding="utf-8").split("run:")[0]
    assert all(word in header for word in ("command:", "time:", "result:"))


@pytest.mark.parametrize(
    ("override", "closest"),
    [
        ("crops.size_px=64", "crop"),
        ("crop.size_pix=64", "size_px"),
        ("plan.step_min=3", "steps_min"),
        ("enhancer.train.stepz=3", "steps"),
        ("enhancer.base.vae.stepz=3", "steps"),
        ("annotations.tie_polcy=drop", "tie_policy"),
        ("afine.phase1.iteration=3", "iterations"),
        ("dataset.license=x", "licence"),
        ("report.titel=x", "title"),
    ],
)
def test_a_typo_is_refused_with_the_closest_known_name(override, closest):
    with pytest.raises(ConfigError, match=f"unknown key .* did you mean '{closest}'"):
        load_config([DEMO], [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [("- 1\n", "expected a mapping"), ("a: [", "not valid YAML"), (None, "not found")],
)
def test_unreadable_configuration(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf"mine\.yaml.*{message}"):
        load_config([path])


def test_overrides_are_merged_and_typed():
    config = load_config([DEMO], ["crop.size_px=192", "plan.prompt=a b"])
    assert (config.crop.size_px, config.plan.prompt) == (192, "a b")
    assert config.crop.max_overlap_px == load_config([DEMO]).crop.max_overlap_px
    with pytest.raises(ConfigError, match="key=value"):
        load_config([DEMO], ["seed"])


def test_resolved_file_is_written_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = load_config([DEMO]).save().path
    before = path.stat().st_mtime_ns
    load_config([DEMO]).save()
    assert path.stat().st_mtime_ns == before


def test_generated_files_are_in_sync():
    remedy = "run 'python -m workflow schema' and commit the result"
    assert (ROOT / "configs/schema.json").read_text(encoding="utf-8") == schema_text(), remedy
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == config_reference(RunConfig), (
        remedy
    )


def test_every_setting_belongs_to_a_stage():
    """A section that no stage's fingerprint covers could change without anything rerunning."""
    specs = [value for value in vars(stages).values() if hasattr(value, "sections")]
    specs += list(stages.TRAIN_PHASES.values())
    covered = {name.partition(".")[0] for spec in specs for name in spec.sections}
    named_by_plan = {"degrade"}  # its values travel in plan.parquet
    not_results = {"run", "results", "scheduling"}
    assert set(RunConfig.model_fields) - not_results <= covered | named_by_plan


def test_the_home_folder_is_known_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(
        [], ["run=a", "sources=[{name: b, path: ~/photos}]", "enhancer.base_model=~/sd15"]
    )
    assert config.sources[0].path == str(tmp_path / "photos")
    assert config.enhancer.base_model == str(tmp_path / "sd15")
