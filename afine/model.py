"""A-FINE: adaptive fidelity-naturalness evaluator (paper Sec. 4.1).

D(test, ref) = F(test, ref) + exp(k (N(ref) - N(test))) N(test); lower is better. The test
image comes first everywhere, and the roles cannot be swapped.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afine.backbone import TrunkShape, VisionTrunk, fit_to_patches
from afine.heads import (
    CENTRE_BOUNDS,
    FIDELITY_START,
    NATURAL_START,
    WIDTH_BOUNDS,
    Adapter,
    Calibration,
    FidelityHead,
    NaturalnessHead,
    to_score100,
)
from afine.statistics import Encoded, differences, encode
from runtime.errors import DataError


@dataclass(frozen=True)
class AFineOutput:
    """Scores of N pairs, each [N]; lower is better in all of them.

    Attributes:
        naturalness_test: calibrated naturalness of the test image, in (-2, 2).
        naturalness_ref: calibrated naturalness of the reference, in (-2, 2).
        fidelity: calibrated fidelity of the pair, in (-2, 2).
        score: D, the A-FINE score; can be very negative.
        score100: D mapped to 0..100.
        raw_naturalness_test: before calibration, unbounded.
        raw_naturalness_ref: before calibration, unbounded.
        raw_fidelity: before calibration, in [0, 2]; 0 for equal images.
    """

    naturalness_test: Tensor
    naturalness_ref: Tensor
    fidelity: Tensor
    score: Tensor
    score100: Tensor
    raw_naturalness_test: Tensor
    raw_naturalness_ref: Tensor
    raw_fidelity: Tensor


class AFine(nn.Module):
    """The whole model; differentiable, so it also serves as a loss.

    Args:
        shape: geometry of the backbone; CLIP ViT-B/32 by default.
        hidden: outputs of the naturalness head's shared projection per stage.
    """

    lower_is_better = True
    score_range = (-float("inf"), float("inf"))

    def __init__(self, shape: TrunkShape | None = None, hidden: int = 128) -> None:
        super().__init__()
        self.backbone = VisionTrunk(shape)
        self.shape = self.backbone.shape
        self.hidden = hidden
        channels = 3 + self.shape.layers * self.shape.width
        self.naturalness = NaturalnessHead(self.shape.width, self.shape.layers, hidden)
        self.fidelity = FidelityHead(channels)
        self.naturalness_scale = Calibration(*NATURAL_START)
        self.fidelity_scale = Calibration(
            *FIDELITY_START, centre_bounds=CENTRE_BOUNDS, width_bounds=WIDTH_BOUNDS
        )
        self.adapter = Adapter()

    def forward(self, test01: Tensor, ref01: Tensor) -> AFineOutput:
        """Score test images against their references.

        Args:
            test01: float [N, 3, H, W] RGB in [0, 1], any H and W; not modified.
            ref01: the references, same shape, or [1, 3, H, W] for one that serves all tests.
        Returns:
            The scores, each [N]. They do not depend on the other images of the batch, beyond
            the rounding of matrix products (below 1e-4 relative in float32).
        Raises:
            DataError: shapes disagree.
        """
        if test01.shape[1:] != ref01.shape[1:] or len(ref01) not in (1, len(test01)):
            raise DataError(
                f"test images {tuple(test01.shape)} and references {tuple(ref01.shape)} differ in "
                "shape: resize or crop them to one size before scoring"
            )
        return self.score_encoded(self.encode(test01), self.encode(ref01))

    def encode(self, image01: Tensor, *, is_for_pairs: bool = True) -> Encoded:
        """Run the backbone once over images [N, 3, H, W], for any number of comparisons."""
        dtype = self.backbone.conv1.weight.dtype
        fitted = fit_to_patches(image01, self.shape.patch_px).to(dtype)
        return encode(self.backbone, fitted, is_for_pairs=is_for_pairs)

    def raw_naturalness(self, encoded: Encoded) -> Tensor:
        """Naturalness before calibration, [N]; lower is better."""
        dtype = self.naturalness.proj_feat.weight.dtype
        score: Tensor = self.naturalness(encoded.means.to(dtype), encoded.variances.to(dtype))
        return score

    def raw_fidelity(self, test: Encoded, ref: Encoded) -> Tensor:
        """Fidelity before calibration, [N]; 0 for equal images, lower is better."""
        raw: Tensor = self.fidelity(differences(test, ref).to(self.fidelity.alpha.dtype))
        return raw

    def score_encoded(self, test: Encoded, ref: Encoded) -> AFineOutput:
        """Score N encoded test images against N encoded references, or one that serves all."""
        raw_test, raw_ref = self.raw_naturalness(test), self.raw_naturalness(ref)
        return self.combine(raw_test, raw_ref.expand_as(raw_test), self.raw_fidelity(test, ref))

    def combine(
        self, raw_naturalness_test: Tensor, raw_naturalness_ref: Tensor, raw_fidelity: Tensor
    ) -> AFineOutput:
        """Calibrate raw scores [N] and combine them (Eqs. 1, 2, 7, 8)."""
        natural_test = self.naturalness_scale(raw_naturalness_test)
        natural_ref = self.naturalness_scale(raw_naturalness_ref)
        fidelity = self.fidelity_scale(raw_fidelity)
        score = self.adapter(natural_test, natural_ref, fidelity)
        return AFineOutput(
            naturalness_test=natural_test,
            naturalness_ref=natural_ref,
            fidelity=fidelity,
            score=score,
            score100=to_score100(score),
            raw_naturalness_test=raw_naturalness_test,
            raw_naturalness_ref=raw_naturalness_ref,
            raw_fidelity=raw_fidelity,
        )

    def initialise(self, seed: int) -> None:
        """Draw every weight anew from `seed`: backbone, heads, and the release's start values."""
        generator = torch.Generator(device="cpu").manual_seed(seed)
        self.backbone.initialise(generator)
        self.initialise_heads(generator)

    def initialise_heads(self, generator: torch.Generator) -> None:
        """Draw the heads anew, for a backbone whose weights are given."""
        self.naturalness.initialise(generator)
        self.fidelity.initialise(generator)
