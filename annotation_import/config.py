"""Settings of the annotation stage: where votes come from, how they become labels, what is checked.

Sources: DiffIQA (CVPR 2025, Sec. 3.2 and App. C), SRIQA-Bench (Sec. 5.2, App. D), HGGT (CVPR 2023);
screening rules after ITU-T P.910/P.913 and BT.500 where the field says so.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from runtime.settings import Section, StageSpec, speed_field

SIMULATED = "simulate"
Layout = Literal["diffiqa", "sriqa", "hggt", "table"]
TiePolicy = Literal["drop", "similar", "dawid_skene"]
ScaleModel = Literal["paper", "thurstone", "bradley_terry"]
TieRule = Literal["half", "both"]

DEFAULT_LABELS: dict[str, int] = {
    "positive": 1, "better": 1, "1": 1, "+1": 1,
    "similar": 0, "0": 0,
    "negative": -1, "worse": -1, "-1": -1,
}  # fmt: skip
_TABLES = (".csv", ".jsonl", ".parquet")


class TableConfig(Section):
    """How a long table (CSV, JSONL, Parquet) is read; one row is one vote."""

    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Our column name: the table's (ref_id, test_id, label needed; test_id_2, "
        "rater_id, slot, shown_left, started, ended, time_s, kind, study, is_synthetic optional). "
        "Names that are not listed are taken as they are.",
    )
    labels: dict[str, Literal[-1, 0, 1]] = Field(
        default_factory=lambda: dict(DEFAULT_LABELS),  # type: ignore[arg-type]
        min_length=1,
        description="The table's answer (any case): -1 test worse, 0 similar, 1 test better.",
    )


class ScaleConfig(Section):
    """Scale values of complete paired comparisons (SRIQA-Bench), fitted per content."""

    model: ScaleModel = Field(
        "paper",
        description="'paper': the released MOS objective (probit, ties for both, unit Gaussian "
        "prior, log clipped at 1e-6); 'thurstone': probit; 'bradley_terry': logit.",
    )
    ties: TieRule = Field(
        "both",
        description="A tie is half a win each, or a whole win for both (the released script).",
    )
    prior_precision: float = Field(
        1.0, ge=0, description="Precision of the Gaussian prior on scale values (release: 1)."
    )

    @model_validator(mode="after")
    def _check_paper(self) -> Self:
        if self.model == "paper" and (self.ties, self.prior_precision) != ("both", 1.0):
            raise ValueError(
                "model 'paper' means ties: both and prior_precision: 1; found ties: "
                f"{self.ties}, prior_precision: {self.prior_precision:g}; use model: thurstone"
            )
        return self


class QualityConfig(Section):
    """Thresholds of the rater report. A flag never excludes a rater; `exclude_raters` does."""

    bootstrap_replicates: int = Field(
        1000, ge=0, description="Bootstrap replicates of the alpha interval; 0 leaves it out."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of all intervals.")
    min_votes_per_rater: int = Field(
        20, ge=1, description="Votes below which a rater is reported but never flagged."
    )
    agreement_sd: float = Field(
        3.0, gt=0, description="Flag agreement with the others this many robust standard "
        "deviations below the median rater."
    )  # fmt: skip
    too_fast_s: float = Field(0.5, ge=0, description="An answer below this time is too fast, in s.")
    too_fast_share: float = Field(0.2, gt=0, le=1, description="Flag above this share of them.")
    time_z: float = Field(
        3.29, gt=0, description="|z| of the log answer time that makes an outlier (P.910)."
    )
    time_outlier_share: float = Field(0.05, gt=0, le=1, description="Flag above this share.")
    run_p: float = Field(
        1e-4, gt=0, lt=1,
        description="Flag a run of equal answers less probable than this under the rater's shares.",
    )  # fmt: skip
    one_answer_share: float = Field(
        0.95, gt=0, le=1, description="Flag a rater who gives one answer more often than this."
    )
    side_p: float = Field(
        1e-4, gt=0, lt=1, description="Flag a side preference less probable than this (binomial)."
    )
    min_repeat_agreement: float = Field(
        0.5, ge=0, le=1, description="Flag a self-agreement on repeats whose interval ends below."
    )


class SimulateConfig(Section):
    """Simulated raters: a Thurstone observer over measurements of the real images.

    The utility of a test image is a weighted sum of measurements relative to its reference,
    turned into normal scores over all images of the study: which images are "better" is thus
    relative to the study, and the shares of the labels are set by `criterion`.
    """

    raters: int = Field(12, ge=1, description="Raters in the pool (DiffIQA: 240).")
    votes_per_image: int = Field(3, ge=1, le=26, description="Votes per image (DiffIQA: 3).")
    sharpness_weight: float = Field(1.0, description="Weight of the log gradient-energy ratio.")
    fidelity_weight: float = Field(1.0, description="Weight of the gradient similarity (GMS).")
    noise_weight: float = Field(-0.5, description="Weight of the log noise ratio.")
    blockiness_weight: float = Field(-0.25, description="Weight of the excess 8x8 blockiness.")
    noise_sd: float = Field(
        0.4, ge=0, description="Standard deviation of one judgement, in units of the utility's."
    )
    criterion: float = Field(
        0.45, gt=0,
        description="Half width of the 'similar' band, in units of the utility's deviation.",
    )  # fmt: skip
    offset: float = Field(
        0.0, description="Utility added to every image; positive gives more 'better'."
    )
    careless_share: float = Field(0.0, ge=0, le=1, description="Share of raters who guess.")
    biased_share: float = Field(
        0.0, ge=0, le=1, description="Share of raters who prefer one side of the screen."
    )
    reversed_share: float = Field(
        0.0, ge=0, le=1, description="Share of raters who swap better and worse."
    )
    repeat_share: float = Field(
        0.0, ge=0, le=1, description="Share of images shown again to their first rater."
    )
    median_time_s: float = Field(3.4, gt=0, description="Median answer time, in s (DiffIQA: 3.40).")

    @model_validator(mode="after")
    def _check_pool(self) -> Self:
        if self.raters < self.votes_per_image:
            raise ValueError(
                f"votes_per_image {self.votes_per_image} needs as many raters; found raters: "
                f"{self.raters}"
            )
        shares = self.careless_share + self.biased_share + self.reversed_share
        if shares > 1:
            raise ValueError(
                f"careless_share + biased_share + reversed_share is {shares:g}; at most 1"
            )
        return self


class AnnotationsConfig(Section):
    """Votes to labels."""

    source: str = Field(
        SIMULATED,
        description="'simulate', or the path of a label tree, archive (.zip, .tar, .tar.gz) or "
        "table (.csv, .jsonl, .parquet).",
    )
    layout: Layout = Field("diffiqa", description="Layout of the source.")
    study: str | None = Field(None, description="Name of the study; by default the layout's.")
    images: str | None = Field(
        None,
        description="Known test images: a folder of images, a text file of ids or a Parquet table "
        "with test_id. By default the run's plan.parquet for the layout diffiqa.",
    )
    table: TableConfig = TableConfig()
    min_votes: int = Field(3, ge=1, description="Votes below which a pair gets no label.")
    tie_policy: TiePolicy = Field(
        "drop",
        description="No single most frequent answer: 'drop' (DiffIQA), 'similar' (HGGT), or the "
        "answer that Dawid-Skene finds most probable.",
    )
    on_duplicate: Literal["reject", "repeat"] = Field(
        "reject",
        description="A second vote of one rater (or slot) on one pair: rejected, or kept as a "
        "repeat, which counts for self-agreement only.",
    )
    slots_are_raters: bool = Field(
        False,
        description="Treat vote slots (A, B, C) as persons. In the released sets they are not: "
        "240 people were folded into three slots.",
    )
    exclude_raters: tuple[str, ...] = Field((), description="Raters whose votes are left out.")
    max_failure_fraction: float = speed_field(
        0.01, ge=0, le=1, description="Share of rejected votes above which the import fails."
    )
    scale: ScaleConfig = ScaleConfig()
    quality: QualityConfig = QualityConfig()
    simulate: SimulateConfig = SimulateConfig()

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        if self.source == SIMULATED and self.layout != "diffiqa":
            raise ValueError(
                f"source 'simulate' writes the layout diffiqa; found layout: {self.layout}"
            )
        if self.source.lower().endswith(_TABLES) and self.layout != "table":
            raise ValueError(
                f"source '{self.source}' is a table, but layout is '{self.layout}'; set layout: "
                "table"
            )
        return self


SIMULATE = StageSpec(
    name="annotation_import simulate",
    module="annotation_import.simulate",
    sections={"seed": None, "annotations.simulate": SimulateConfig},
)

IMPORT = StageSpec(
    name="annotation_import import",
    module="annotation_import.stage",
    sections={
        "seed": None,
        "annotations.table": TableConfig,
        "annotations.scale": ScaleConfig,
        "annotations.quality": QualityConfig,
        **{
            f"annotations.{name}": None
            for name in (
                "source", "layout", "study", "images", "min_votes", "tie_policy", "on_duplicate",
                "slots_are_raters", "exclude_raters",
            )
        },
    },
)  # fmt: skip
