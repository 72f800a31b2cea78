"""Statistics over the entries that a mask admits. A mask is 1 (or True) where an entry counts, 0 elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Total: TypeAlias = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes, entry by entry, so that a statistic is of the entries of all."""

_NO_VARIANCE = 1e-8


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """The sum of the admitted entries; entries that the mask leaves out may be NaN or infinite."""
    return torch.where(mask.bool(), x, torch.zeros_like(x)).sum()


def of_this_process(x: Tensor) -> Tensor:
    """The `Total` of a run in one process."""
    return x


def masked_mean(x: Tensor, mask: Tensor, total: Total = of_this_process) -> Tensor:
    """The mean of the admitted entries, 0 when there are none."""
    return total(masked_sum(x, mask)) / total(mask.sum()).clamp(min=1)


def masked_variance(x: Tensor, mask: Tensor, total: Total = of_this_process) -> Tensor:
    """The population variance of the admitted entries, 0 when there are none."""
    return masked_mean((x - masked_mean(x, mask, total)).square(), mask, total)


def masked_whiten(x: Tensor, mask: Tensor, total: Total = of_this_process) -> Tensor:
    """The admitted entries shifted to mean 0 and scaled to variance 1; 0 elsewhere.

    Entries that are all equal become 0, not noise divided by almost nothing.
    """
    centred = torch.where(mask.bool(), x - masked_mean(x, mask, total), torch.zeros_like(x))
    return centred * (masked_variance(x, mask, total) + _NO_VARIANCE).rsqrt()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, total: Total = of_this_process) -> Tensor:
    """The share of the returns' variance that the values explain.

    1 is a perfect critic, 0 one no better than a constant, below 0 a worse one. 0 too when the returns do not vary.
    """
    variance = masked_variance(returns, mask, total)
    unexplained = masked_variance(returns - values, mask, total)
    return torch.where(variance > _NO_VARIANCE, 1 - unexplained / variance.clamp(min=_NO_VARIANCE), 0.0)
