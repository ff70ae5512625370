import json

import pytest

from runtime.errors import ConfigError, DataError
from runtime.settings import Section, StageSpec, load_run, speed_field
from runtime.stage import Rejections, open_stage, stage_key


class Settings(Section):
    size: int = 1
    workers: int = speed_field(1)


SPEC = StageSpec("toy make", "runtime.seeds", {"seed": None, "toy": Settings})


@pytest.fixture
def start(tmp_path):
    def begin(*, replace=False, **toy):
        config = tmp_path / "config.resolved.json"
        config.write_text(json.dumps({"seed": 0, "toy": toy}))
        source = tmp_path / "input.json"
        if not source.exists():
            source.write_text("{}")
        return open_stage(
            SPEC,
            load_run(config),
            manifest=tmp_path / "out/manifest.json",
            state=tmp_path / "out/.state",
            inputs=[source],
            replace=replace,
        )

    return begin


def finish(stage, tmp_path):
    output = tmp_path / "out/data.bin"
    output.write_bytes(b"data")
    stage.finish(counts={"in": 1, "out": 1, "rejected": {}}, files=[output])


def test_finished_stage_is_recognised(start, tmp_path):
    finish(start(), tmp_path)
    assert start().is_complete
    assert start(workers=8).is_complete


def test_interrupted_stage_resumes(start):
    assert not start().is_resumed
    assert start().is_resumed


def test_other_settings_are_refused_by_name_and_replaced_on_request(start, tmp_path):
    work = start().state / "work.bin"
    work.write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"toy\.size.*--replace"):
        start(size=2)
    assert work.exists()
    assert not start(size=2, replace=True).is_resumed
    assert not work.exists()


def test_what_an_interrupted_removal_left_is_not_taken_for_ones_own(start):
    state = start().state
    (state / "work.bin").write_bytes(b"made with size 1")
    (state / "run.json").unlink()  # a removal takes the record first, and was killed then
    assert not start(size=2).is_resumed
    assert not (state / "work.bin").exists()


def test_state_that_a_kill_left_beside_a_manifest_is_removed(start, tmp_path):
    stage = start()
    (stage.state / "work.bin").write_bytes(b"half")
    finish(stage, tmp_path)
    assert start().is_complete
    assert not stage.state.exists()


def test_changed_input_is_noticed(start, tmp_path):
    finish(start(), tmp_path)
    (tmp_path / "input.json").write_text('{"new": 1}')
    with pytest.raises(ConfigError, match=r"input input\.json"):
        start()
    (tmp_path / "input.json").unlink()


def test_manifest_is_gone_while_the_stage_is_redone(start, tmp_path):
    finish(start(), tmp_path)
    start(size=5, replace=True)
    assert not (tmp_path / "out/manifest.json").exists()


def test_manifests_of_equal_work_are_equal_bytes(start, tmp_path):
    finish(start(), tmp_path)
    first = (tmp_path / "out/manifest.json").read_bytes()
    (tmp_path / "out/manifest.json").unlink()
    finish(start(), tmp_path)
    assert (tmp_path / "out/manifest.json").read_bytes() == first


def test_missing_input_is_one_clear_line(start, tmp_path):
    start()
    (tmp_path / "input.json").rename(tmp_path / "gone.json")
    config = load_run(tmp_path / "config.resolved.json")
    with pytest.raises(DataError, match=r"input\.json: input not found"):
        open_stage(
            SPEC,
            config,
            manifest=tmp_path / "m.json",
            state=tmp_path / "s",
            inputs=[tmp_path / "input.json"],
        )


def test_stage_key_follows_settings_not_speed(tmp_path):
    def key(**toy):
        config = tmp_path / "config.resolved.json"
        config.write_text(json.dumps({"seed": 0, "toy": toy}))
        return stage_key(SPEC, load_run(config))

    assert key(size=1) == key(size=1, workers=3) == key()
    assert key(size=1) != key(size=2)


def test_too_many_rejections_fail_with_the_histogram():
    rejected = Rejections(0.5)
    rejected.add("a", "too_small", "3x3")
    rejected.check(2, where="photos", what="photographs")
    rejected.add("b", "unreadable")
    with pytest.raises(DataError, match=r"2 of 3 photographs.*too_small: 1, unreadable: 1"):
        rejected.check(3, where="photos", what="photographs")
