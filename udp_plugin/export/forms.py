"""Forms in which ONNX's runtimes compute the decoding faster, with the same answers.

The decoding is defined in plain torch (:mod:`udp_plugin.functional`). Three things in
it are recorded otherwise for ONNX, within :class:`ONNXForms`:

- sizes of maps, as numbers, so that what depends on nothing else, such as the matrix of
  a blur, is computed once, while the file is written,
- ``nan_to_num`` to zeros, whose ``Where`` is the slowest part of the decoding,
- ``max`` over a map's pixels, whose ``ArgMax`` is several times as slow as
  ``ReduceMax``.
"""

from typing import Any, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NAN_TO_NUM = (torch.nan_to_num, Tensor.nan_to_num)
MAX = (torch.max, Tensor.max)


class ONNXForms(TorchFunctionMode):
    """A context within which torch records the forms that ONNX has for the decoding.

    Of each tensor's axes, the first alone may depend on the batch.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.shape.__get__:
            return _fixed(func(*args))
        if func in NAN_TO_NUM and {*args[1:], *kwargs.values()} == {0}:
            return _ZeroUnlessFinite.apply(args[0])
        if func in MAX and [*args[1:], *kwargs.values()] == [-1]:
            return _highest(args[0])
        return func(*args, **kwargs)


def _fixed(shape: torch.Size) -> torch.Size:
    """A recorded shape, of which but the first length are numbers."""
    return torch.Size((*shape[:1], *map(int, shape[1:])))


class _ZeroUnlessFinite(torch.autograd.Function):
    """``nan_to_num`` to zeros.

    ``ThresholdedRelu`` is ``x > alpha ? x : 0``: what is NaN or below all numbers
    becomes 0. onnxruntime has it in parallel.
    """

    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)

    @staticmethod
    def symbolic(g, maps):
        lowest = -torch.finfo(torch.float32).max
        for _ in range(2):
            above = g.op('ThresholdedRelu', maps, alpha_f=lowest)
            maps = g.op('Neg', above).setType(maps.type())
        return maps


def _highest(flat: Tensor) -> Tuple[Tensor, Tensor]:
    """``flat.max(-1)`` of (N, L): first the highest of equal bands, then within it."""
    (length,) = map(int, flat.shape[1:])
    bands = [n for n in range(1, length + 1) if length % n == 0]
    count = min(bands, key=lambda n: abs(n - length**0.5))
    bands = flat.reshape(-1, count, length // count)
    score, first = bands.amax(-1).max(-1)
    band = bands.gather(1, first[:, None, None].expand(-1, 1, bands.shape[-1]))
    return score, band[:, 0].argmax(-1) + first * bands.shape[-1]
