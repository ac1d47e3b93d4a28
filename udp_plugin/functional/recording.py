"""What differs while torch records a graph, to be exported, of what is computed.

A graph has no branches on values and no sizes but those it was recorded with, apart
from the batch's. So where the other functions look at values to save work, or count a
batch in Python, they ask here first.
"""

from typing import Tuple

import torch
from torch import Tensor


def recording() -> bool:
    """Whether torch records a graph: in ``torch.jit.trace``, ``torch.onnx.export``, or
    ``torch.export.export`` of torch 2.7 or later.

    Example:
        >>> recording()
        False
    """
    if torch.jit.is_tracing():
        return True
    # Torch has it since 2.7.
    is_exporting = getattr(torch.compiler, 'is_exporting', None)
    return is_exporting is not None and is_exporting()


def size_of(maps: Tensor) -> Tuple[int, int]:
    """Height and width of maps, as numbers also while a graph is recorded."""
    height, width = maps.shape[-2:]
    return int(height), int(width)
