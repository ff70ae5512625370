import json

import pytest
from pydantic import Field

from runtime.errors import ConfigError
from runtime.settings import (
    Section,
    StageSpec,
    load_run,
    parse_section,
    result_values,
    speed_field,
    stage_settings,
)


class Inner(Section):
    steps: int = Field(20, ge=1)
    batch_size: int = speed_field(4)


class Outer(Section):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = Field(default_factory=dict)
    name: str = "x"


def test_speed_fields_do_not_count_at_any_level():
    slow = Outer(many=(Inner(),), named={"a": Inner()})
    fast = Outer(
        inner=Inner(batch_size=9), many=(Inner(batch_size=9),), named={"a": Inner(batch_size=9)}
    )
    assert result_values(slow) == result_values(fast)
    assert result_values(slow) != result_values(Outer(inner=Inner(steps=3)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"stepz": 3}}, r"inner\.stepz: unknown key 'stepz'; did you mean 'steps'"),
        ({"nme": "y"}, "did you mean 'name'"),
        ({"many": [{"batchsize": 3}]}, "did you mean 'batch_size'"),
        ({"named": {"a": {"batchsize": 3}}}, "did you mean 'batch_size'"),
        ({"inner": {"steps": 0}}, r"inner\.steps: .*greater than or equal to 1.*found 0"),
        ({"qqq": 1}, "known keys: inner, many, name, named"),
    ],
)
def test_wrong_values_name_the_place_and_the_remedy(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_section(Outer, values, where="my.yaml")


def test_stage_settings_ignore_key_order_and_speed(tmp_path):
    spec = StageSpec("s", "runtime.seeds", {"seed": None, "inner": Inner})
    path = tmp_path / "config.resolved.json"
    path.write_text(json.dumps({"seed": 1, "inner": {"steps": 3, "batch_size": 1}}))
    first = stage_settings(spec, load_run(path))
    path.write_text(json.dumps({"inner": {"batch_size": 8, "steps": 3}, "seed": 1}))
    assert stage_settings(spec, load_run(path)) == first


def test_yaml_given_to_a_stage_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="workflow resolve"):
        load_run(tmp_path / "demo.yaml")
