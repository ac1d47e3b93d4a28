"""What differs while torch records a graph, to be exported, of what is computed.

A graph has no branches on values and no sizes but those it was recorded with, apart
from the batch's. So where the other functions look at values to save work, or count a
batch in Python, they ask here first.
"""

from typing import Tuple

import torch
from torch import Tensor


def recording() -> bool:
    """Whether torch records a graph: ``torch.jit.trace``, ``torch.onnx.export`` or
    ``torch.export``.

    Example:
        >>> recording()
        False
    """
    if torch.jit.is_tracing():
        return True
    # Torch 2.1 lacks it.
    is_compiling = getattr(torch.compiler, 'is_compiling', None)
    return is_compiling is not None and is_compiling()


def size_of(maps: Tensor) -> Tuple[int, int]:
    """Height and width of maps, as numbers also while a graph is recorded."""
    height, width = maps.shape[-2:]
    return int(height), int(width)
