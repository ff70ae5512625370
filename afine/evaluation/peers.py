"""Metrics beside A-FINE: weights-free ones from piq, others through the optional pyiqa."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from runtime.errors import ResourceError

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One metric.

    Attributes:
        name: as in the configuration.
        label: as in the paper's tables.
        score: (test01, ref01), each [N, 3, H, W] in [0, 1] -> [N].
        lower_is_better: direction.
        min_px: shortest side that the metric is defined for, in pixels.
    """

    name: str
    label: str
    score: Score
    lower_is_better: bool = False
    min_px: int = 1


def load_peers(names: Sequence[str], device: torch.device) -> list[Peer]:
    """Make the metrics of a configuration.

    Raises:
        ResourceError: one needs a package or weights that are not there.
    """
    return [_pyiqa(name, device) if ":" in name else _BUILT_IN[name] for name in names]


def _psnr(test01: Tensor, ref01: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all channels, in dB; infinite for equal images."""
    mse = (test01.double() - ref01.double()).square().flatten(1).mean(dim=1)
    return -10 * torch.log10(mse)


def _piq(function: str, test01: Tensor, ref01: Tensor, **options: float) -> Tensor:
    import piq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value: Tensor = getattr(piq, function)(
            test01, ref01, data_range=1.0, reduction="none", **options
        )
    return value.double()


_BUILT_IN = {
    "psnr": Peer("psnr", "PSNR", _psnr),
    "ssim": Peer("ssim", "SSIM", partial(_piq, "ssim"), min_px=11),
    "ms_ssim": Peer("ms_ssim", "MS-SSIM", partial(_piq, "multi_scale_ssim"), min_px=161),
    "fsim": Peer("fsim", "FSIM", partial(_piq, "fsim"), min_px=16),
    "vsi": Peer("vsi", "VSI", partial(_piq, "vsi"), min_px=16),
    "vif": Peer("vif", "VIF", partial(_piq, "vif_p"), min_px=41),
}


def _pyiqa(name: str, device: torch.device) -> Peer:
    metric_name = name.partition(":")[2]
    try:
        import pyiqa
    except ImportError:
        raise ResourceError(
            f"afine.evaluate.peers: '{name}' needs the optional package pyiqa: install the "
            "extra 'pyiqa', or leave the metric out"
        ) from None
    try:
        metric = pyiqa.create_metric(metric_name, device=device)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"afine.evaluate.peers: '{name}' cannot be made ({error}); its weights have to be on "
            "this machine"
        ) from None

    def score(test01: Tensor, ref01: Tensor) -> Tensor:
        # clones: some of its metrics change the tensors that they are given
        values = [
            metric(test01[n : n + 1].clone(), ref01[n : n + 1].clone()).reshape(1)
            for n in range(len(test01))
        ]
        return torch.cat(values).double()

    return Peer(name, metric_name.upper(), score, lower_is_better=bool(metric.lower_better))
