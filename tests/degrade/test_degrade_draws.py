"""Frequencies and ranges of drawn parameters: what a test on pixels cannot see."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from degrade import draw_degradation
from degrade.config import DegradeConfig
from degrade.drawn import drawn_from, drawn_values
from degrade.parameters import BlurParameters, DegradationParameters, ResizeParameters
from degrade.presets import PRESETS, preset_parameters
from runtime.errors import ConfigError

COUNT = 6000


@pytest.fixture(scope="module")
def draws():
    return [draw_degradation("diffiqa-released", seed) for seed in range(COUNT)]


def assert_frequencies(values, expected):
    """Chi-square test of how often each value occurs."""
    counts = Counter(values)
    assert set(counts) == set(expected)
    total = sum(counts.values())
    wanted = [expected[name] * total for name in expected]
    assert stats.chisquare([counts[name] for name in expected], wanted).pvalue > 1e-3


def assert_uniform(values, lowest, highest):
    """Kolmogorov-Smirnov test against a uniform distribution."""
    assert lowest <= min(values) and max(values) <= highest
    assert stats.kstest(values, "uniform", (lowest, highest - lowest)).pvalue > 1e-3


def test_blur(draws):
    blurs = [drawn.stages[0].blur for drawn in draws]
    assert_frequencies([blur.size_px for blur in blurs], dict.fromkeys((3, 5, 7, 9), 0.25))
    families = {
        "sinc": 0.1, "iso": 0.405, "aniso": 0.225, "generalized_iso": 0.108,
        "generalized_aniso": 0.027, "plateau_iso": 0.108, "plateau_aniso": 0.027,
    }  # fmt: skip
    assert_frequencies([blur.kernel for blur in blurs], families)
    assert_uniform([blur.sigma_x_px for blur in blurs if blur.sigma_x_px is not None], 0, 1.2)
    turned = [blur for blur in blurs if blur.kernel.endswith("aniso")]
    assert_uniform([blur.sigma_y_px for blur in turned], 0, 1.2)
    assert_uniform([blur.rotation_rad for blur in turned], -np.pi, np.pi)
    even = [blur for blur in blurs if blur.kernel.endswith("iso") and blur not in turned]
    assert all(blur.sigma_x_px == blur.sigma_y_px for blur in even)


@pytest.mark.parametrize(("size_px", "lowest"), [(3, np.pi / 3), (7, np.pi / 3), (9, np.pi / 5)])
def test_sinc_cutoff(draws, size_px, lowest):
    blurs = [drawn.stages[0].blur for drawn in draws]
    sincs = [blur for blur in blurs if blur.kernel == "sinc" and blur.size_px == size_px]
    assert_uniform([blur.cutoff_rad for blur in sincs], lowest, np.pi)


@pytest.mark.parametrize(("family", "second"), [("generalized", 0.8), ("plateau", 0.4)])
def test_beta_runs_from_zero_to_one_and_from_one_down(draws, family, second):
    """Half uniform in [0, 1], half between 1 and the second end, which lies below 1."""
    blurs = [drawn.stages[0].blur for drawn in draws]
    betas = [blur.beta for blur in blurs if blur.kernel.startswith(family)]
    assert min(betas) >= 0 and max(betas) <= 1
    below = np.mean(np.array(betas) < second)
    assert below == pytest.approx(second / 2, abs=0.07)


def test_resize(draws):
    resizes = [drawn.stages[0].resize for drawn in draws]
    assert_frequencies(
        [resize.direction for resize in resizes], {"up": 0.1, "down": 0.85, "keep": 0.05}
    )
    by_direction = {
        name: [resize.factor for resize in resizes if resize.direction == name]
        for name in ("up", "down", "keep")
    }
    assert_uniform(by_direction["up"], 1, 1.1)
    assert_uniform(by_direction["down"], 0.8, 1)
    assert set(by_direction["keep"]) == {1.0}
    modes = dict.fromkeys(("area", "bilinear", "bicubic"), 1 / 3)
    assert_frequencies([resize.mode for resize in resizes], modes)
    assert_frequencies([drawn.back_mode for drawn in draws], modes)


def test_noise(draws):
    noises = [drawn.stages[0].noise for drawn in draws]
    assert_frequencies([noise.kind for noise in noises], {"gaussian": 0.5, "poisson": 0.5})
    assert_frequencies([noise.is_grey for noise in noises], {True: 0.1, False: 0.9})
    for kind, highest in (("gaussian", 13), ("poisson", 0.9)):
        assert_uniform([noise.level for noise in noises if noise.kind == kind], 0, highest)


def test_jpeg_and_final_part(draws):
    assert_uniform([drawn.stages[0].jpeg_quality for drawn in draws], 75, 95)
    finals = [drawn.final for drawn in draws]
    assert_uniform([final.jpeg_quality for final in finals], 90, 95)
    assert_uniform([final.shrink for final in finals], 1, 1.5)
    assert_frequencies([final.order for final in finals], {"shrink-jpeg": 0.5, "jpeg-shrink": 0.5})
    assert_frequencies([final.sinc.kernel for final in finals], {"none": 0.9, "sinc": 0.1})
    sincs = [final.sinc for final in finals if final.sinc.kernel == "sinc"]
    assert_frequencies([sinc.size_px for sinc in sincs], dict.fromkeys((3, 5, 7), 1 / 3))
    assert_uniform([sinc.cutoff_rad for sinc in sincs], np.pi / 3, np.pi)


def test_draws_of_a_seed_are_independent():
    """Neighbouring seeds and the parameters of one draw do not follow each other."""
    qualities = [draw_degradation("diffiqa", seed).stages[0].jpeg_quality for seed in range(3000)]
    assert abs(np.corrcoef(qualities[:-1], qualities[1:])[0, 1]) < 0.06
    assert draw_degradation("diffiqa", 5) == draw_degradation("diffiqa", 5)


def test_paper_preset_is_the_first_stage_of_the_release():
    paper, release = PRESETS["diffiqa"], PRESETS["diffiqa-released"]
    assert paper.stages == release.stages
    assert paper.final is None and paper.back_modes == ("bicubic",)
    assert release.final is not None and len(release.back_modes) == 3


def test_hggt_presets_differ_where_the_table_does():
    one, two = (PRESETS[name].stages[0] for name in ("hggt-1", "hggt-2"))
    assert one.blur.sigma_px == (0.1, 0.5) and two.blur.sigma_px == (0.5, 1.0)
    assert one.noise.gaussian_sigma == (6.5, 13.0) and two.noise.gaussian_sigma == (0.5, 6.5)
    assert one.noise.poisson_scale == (0.45, 0.9) and two.noise.poisson_scale == (0.05, 0.45)
    assert one.resize == two.resize and one.jpeg_quality == two.jpeg_quality == (80.0, 95.0)
    assert one.blur.families == {"iso": 0.7, "aniso": 0.3}


def test_realesrgan_has_two_stages():
    for seed in range(200):
        drawn = draw_degradation("realesrgan", seed)
        first, second = drawn.stages
        assert first.jpeg_quality is not None and second.jpeg_quality is None
        assert second.resize.of_input == 0.25 and drawn.final.shrink == 4.0
    blurred = [
        draw_degradation("realesrgan", s).stages[1].blur.kernel != "none" for s in range(600)
    ]
    assert np.mean(blurred) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_draws_survive_a_table(preset):
    drawn = draw_degradation(preset, 3)
    assert drawn_from(drawn_values(drawn)) == drawn


def test_custom_parameters_need_their_preset_name():
    custom = PRESETS["hggt-1"].model_dump()
    config = DegradeConfig.model_validate({"preset": "custom", "custom": custom})
    assert config.parameters == PRESETS["hggt-1"]
    for values in ({"preset": "custom"}, {"preset": "diffiqa", "custom": custom}):
        with pytest.raises(ValueError, match="give both or neither"):
            DegradeConfig.model_validate(values)


ONE_KERNEL = {"kernel_px": [3], "families": {"iso": 1}, "sigma_px": [0, 1]}
TWO_LIKELY = {"up_probability": 0.6, "down_probability": 0.6, "factor": [1, 1]}


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (BlurParameters, {**ONE_KERNEL, "kernel_px": [4]}, "odd"),
        (BlurParameters, {**ONE_KERNEL, "families": {}}, "weights"),
        (BlurParameters, {**ONE_KERNEL, "sigma_px": [2, 1]}, "lowest"),
        (ResizeParameters, TWO_LIKELY, "exceeds 1"),
        (DegradationParameters, {"stages": []}, "at least 1"),
    ],
)
def test_impossible_parameters_are_refused(model, values, message):
    with pytest.raises(ValueError, match=message):
        model.model_validate(values)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match="there are: diffiqa, diffiqa-released"):
        preset_parameters("diffqa")
