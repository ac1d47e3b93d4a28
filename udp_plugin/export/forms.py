"""Forms in which ONNX's runtimes compute the decoding faster, with the same answers."""

from typing import Any, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NAN_TO_NUM = (torch.nan_to_num, Tensor.nan_to_num)
MAX = (torch.max, Tensor.max)


class ONNXForms(TorchFunctionMode):
    """Within it, four things of the decoding's plain torch are recorded otherwise.

    - Sizes, but that of a tensor's first axis, which may be the batch's, are numbers:
      what depends on nothing else, as a blur's matrix does, is computed beforehand.
    - ``nan_to_num`` to zeros, whose ``Where`` is the slowest part of the decoding.
    - ``max`` over a map's pixels: ``ArgMax`` takes several times as long as
      ``ReduceMax``.
    - ``unflatten`` of the last axis: torch 2.1 does not write it before opset 13, and
      loses an axis of one pixel.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        values = *args[1:], *kwargs.values()
        if func == Tensor.shape.__get__:
            shape = func(*args)
            return torch.Size((*shape[:1], *map(int, shape[1:])))
        if func in NAN_TO_NUM and set(values) == {0.0}:
            return _ZeroUnlessFinite.apply(args[0])
        last = len(values) == 1 and isinstance(values[0], int) and values[0] == -1
        if func in MAX and last and args[0].ndim == 2:
            return _highest(args[0])
        if func == Tensor.unflatten and values[0] == -1:
            return args[0].reshape(-1, *args[0].shape[1:-1], *values[1])
        return func(*args, **kwargs)


class _ZeroUnlessFinite(torch.autograd.Function):
    """``ThresholdedRelu`` is ``x > alpha ? x : 0``; onnxruntime has it in parallel."""

    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)

    @staticmethod
    def symbolic(g, maps):
        lowest = -torch.finfo(torch.float32).max
        # What is NaN or below all numbers becomes 0; then what is above them.
        for _ in range(2):
            above = g.op('ThresholdedRelu', maps, alpha_f=lowest)
            maps = g.op('Neg', above).setType(maps.type())
        return maps


def _highest(flat: Tensor) -> Tuple[Tensor, Tensor]:
    """``flat.max(-1)`` of (N, L): first the highest of equal bands, then within it."""
    length = int(flat.shape[1])
    sizes = [n for n in range(1, length + 1) if length % n == 0]
    size = min(sizes, key=lambda n: abs(n - length**0.5))
    bands = flat.reshape(-1, length // size, size)
    score, first = bands.amax(-1).max(-1)
    band = bands.gather(1, first[:, None, None].expand(-1, 1, size))
    return torch.return_types.max((score, band[:, 0].argmax(-1) + first * size))
