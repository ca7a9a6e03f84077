"""Whether a tensor's values are all finite."""

from __future__ import annotations

import torch


def all_finite(values: torch.Tensor) -> bool:
    """Whether no element of ``values``, of which there is at least one, is infinite or NaN.

    ``torch.isfinite`` makes an array of truth values, and on the way one of absolute values as large as its argument.
    """
    least, most = torch.aminmax(values)
    return bool(torch.isfinite(least) & torch.isfinite(most))
