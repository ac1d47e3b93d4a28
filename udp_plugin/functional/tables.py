"""Small arrays and tensors that depend on sizes alone, made once."""

from functools import lru_cache, wraps
from typing import Callable, Dict

import numpy as np
import torch
from torch import Tensor

from .geometry import Array
from .recording import recording

#: Of each table, so many are kept.
KEPT = 128


def table(build: Callable[..., np.ndarray]) -> Callable[..., Array]:
    """Decorate a function of numbers that returns an array, to get tensors as well.

    What is returned takes a further keyword ``like``: an array, or the tensor whose
    device and floating dtype the result gets. Integers keep theirs. The result is
    shared by all calls and must not be changed.
    """
    build = lru_cache(maxsize=KEPT)(build)
    tensors: Dict[tuple, Tensor] = {}

    def make(args: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
        array = build(*args)
        # A tensor made in inference mode could not be used by autograd later.
        with torch.inference_mode(False):
            made = torch.as_tensor(
                array, dtype=dtype if array.dtype.kind == 'f' else None, device=device
            )
        # What is made for a graph is part of it, and is made again for another.
        if not recording() and type(made) is Tensor:
            if len(tensors) >= KEPT:
                tensors.clear()
            tensors[args, dtype, device] = made
        return made

    @wraps(build)
    def made(*args, like: Array) -> Array:
        if not isinstance(like, Tensor):
            return build(*args)
        found = tensors.get((args, like.dtype, like.device))
        return make(args, like.dtype, like.device) if found is None else found

    return made


@table
def window_index(size_x: int, size_y: int, width: int) -> np.ndarray:
    """Indices of a window's pixels in a flat map, counted from its first pixel."""
    rows = width * np.arange(size_y, dtype=np.int64)[:, None]
    return (rows + np.arange(size_x)).ravel()


@table
def vector(*values: float) -> np.ndarray:
    """The values, in the dtype of ``like``."""
    return np.array(values, dtype=float)


@table
def taps(size: int) -> np.ndarray:
    """``0 ... size - 1`` as floats."""
    return np.arange(size, dtype=float)
