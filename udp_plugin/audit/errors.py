"""Statistics of errors, the same for configs and for maps; and what failures say."""

from functools import partial
from typing import Dict, Optional

import numpy as np

_STATISTICS = {
    'mean': np.mean,
    'median': np.median,
    'p95': partial(np.percentile, q=95),
    'max': np.max,
}
Statistics = Dict[str, Optional[float]]


def statistics(values: np.ndarray) -> Statistics:
    """Mean, median, 95th percentile and maximum of the finite values; None of none."""
    values = values[np.isfinite(values)]
    return {
        name: float(of(values)) if len(values) else None
        for name, of in _STATISTICS.items()
    }


def by_axis(x: np.ndarray, y: np.ndarray) -> Dict[str, Statistics]:
    """Statistics of absolute errors along each axis, and the mean with its sign.

    Args:
        x, y: Errors along the axis, shape (M,).
    """
    return {
        axis: dict(statistics(np.abs(e)), signed_mean=statistics(e)['mean'])
        for axis, e in dict(x=x, y=y).items()
    }


def mean_of_worse_axis(errors: np.ndarray) -> float:
    """The mean absolute error of (M, 2) on the axis where it is larger."""
    return float(np.abs(errors).mean(0).max())


def in_words(error: Exception) -> str:
    """An error's type, and the first line of its message."""
    lines = str(error).strip().splitlines() or ['without a message']
    return f'{type(error).__name__}: {lines[0][:200]}'
