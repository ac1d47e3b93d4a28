"""Blurs of maps as OpenCV makes them, and what all readings of maps begin with."""

from functools import lru_cache, wraps
from typing import Callable, Iterator, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_kernel_size
from .geometry import unit_length
from .recording import recording, size_of
from .tables import table, vector, window_index

#: OpenCV's Gaussian kernels of up to 9 px, which do not follow its formula.
SMALL_KERNELS = {
    1: (1.0,),
    3: (1.0, 2.0, 1.0),
    5: (1.0, 4.0, 6.0, 4.0, 1.0),
    7: (2.0, 7.0, 14.0, 18.0, 14.0, 7.0, 2.0),
    9: (4.0, 13.0, 30.0, 51.0, 60.0, 51.0, 30.0, 13.0, 4.0),
}


def full_precision(function: Callable) -> Callable:
    """Keep autocast, under which models run, from rounding coordinates to half."""

    @wraps(function)
    def in_full_precision(maps, *args, **kwargs):
        device = maps.device.type if isinstance(maps, Tensor) else 'cpu'
        if device not in ('cpu', 'cuda'):
            return function(maps, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(maps, *args, **kwargs)

    return in_full_precision


def check_maps(maps: Tensor) -> None:
    """Refuse what is not maps of shape (..., K, H, W), 3 x 3 pixels or more."""
    if not isinstance(maps, Tensor):
        raise TypeError(f'maps must be a torch.Tensor, got {type(maps).__name__}')
    if maps.ndim < 3 or min(maps.shape[-2:]) < 3:
        raise ValueError(
            'maps must have shape (..., K, H, W) with H and W of at least 3, got '
            f'{tuple(maps.shape)}'
        )


def computable(maps: Tensor) -> Tensor:
    """Maps in a dtype to compute in."""
    if not maps.is_floating_point() or maps.dtype in (torch.float16, torch.bfloat16):
        return maps.float()
    return maps


def finite(maps: Tensor) -> Tensor:
    """Maps with 0 for what is not finite."""
    if torch.onnx.is_in_onnx_export():
        return _FiniteInONNX.apply(maps)
    return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)


class _FiniteInONNX(torch.autograd.Function):
    """:func:`finite`, with ONNX's operators for it.

    ``ThresholdedRelu`` is ``x > alpha ? x : 0``: what is NaN or below all numbers
    becomes 0. onnxruntime has it in parallel, and of ``Where`` it is the slowest part
    of decoding.
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


def gaussian_kernel_sigma(kernel_size: int) -> float:
    """The sigma that OpenCV gives a Gaussian kernel of this size, in px.

    Example:
        >>> round(gaussian_kernel_sigma(11), 6)
        2.0
    """
    return 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8


def gaussian(reach: int, sigma: float) -> np.ndarray:
    """Weights of a Gaussian at ``-reach ... reach``, summing to 1."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def opencv_kernel(kernel_size: int) -> np.ndarray:
    """``cv2.getGaussianKernel(kernel_size, 0)``, whose small ones are tables."""
    if kernel_size in SMALL_KERNELS:
        weights = np.array(SMALL_KERNELS[kernel_size])
        return weights / weights.sum()
    return gaussian(kernel_size // 2, gaussian_kernel_sigma(kernel_size))


def _reflect(index, last: int):
    """Indices beyond ``0 ... last`` reflected, without repeating the edge."""
    index = index % (2 * last)
    return last - abs(last - index)


@lru_cache(maxsize=64)
def blur_matrix(length: int, kernel_size: int) -> np.ndarray:
    """A blur along an axis, reflected borders included, as a square matrix."""
    (last,) = unit_length((length,))
    reach = kernel_size // 2
    rows = np.arange(length)[:, None]
    matrix = np.zeros((length, length))
    columns = _reflect(rows + np.arange(-reach, reach + 1), last)
    np.add.at(matrix, (rows, columns), opencv_kernel(kernel_size))
    return matrix


blur_weights = table(blur_matrix)


def _blocks(length: int, kernel_size: int) -> Iterator[Tuple[slice, slice]]:
    """Parts of an axis, and the pixels that the blur of each is made from."""
    size = 32 if length > 64 else length
    for start in range(0, length, size):
        first = max(start - kernel_size // 2, 0)
        yield (
            slice(start, start + size),
            slice(first, start + size + kernel_size // 2),
        )


def blurred_maps(maps: Tensor, kernel_size: int) -> Tensor:
    """As :func:`blur`, of maps to compute with."""
    height, width = size_of(maps)
    x = blur_weights(width, kernel_size, like=maps)
    y = blur_weights(height, kernel_size, like=maps)
    columns = _blocks(width, kernel_size)
    maps = torch.cat([maps[..., from_] @ x[to, from_].T for to, from_ in columns], -1)
    rows = _blocks(height, kernel_size)
    return torch.cat([y[to, from_] @ maps[..., from_, :] for to, from_ in rows], -2)


@full_precision
def blur(maps: Tensor, kernel_size: int) -> Tensor:
    """Blur maps as ``cv2.GaussianBlur(map, (k, k), 0)`` does.

    Args:
        maps: Shape (..., K, H, W).
        kernel_size: ``k``, odd; the kernel is OpenCV's for that size. Borders
            are reflected without repeating the edge.

    Returns:
        New maps of the same shape.
    """
    check_maps(maps)
    check_kernel_size(kernel_size)
    return blurred_maps(finite(computable(maps)), kernel_size)


def crop(maps: Tensor, first: Tensor, size: Sequence[int]) -> Tensor:
    """Windows of maps.

    Args:
        maps: Shape (N, C, H, W); the C maps share their window.
        first: The windows' first pixels, shape (N, 2), (x, y), integer; the windows
            lie within the map.
        size: ``(P, Q)``, the windows' columns and rows.

    Returns:
        Shape (N, C, Q, P), of a dtype to compute in, with 0 for what is not finite.
    """
    if recording():
        height, width = size_of(maps)
        index = window_index(*size, width, like=first)
        index = index + first[:, 1:] * width + first[:, :1]
        index = index[:, None].expand(-1, maps.shape[1], -1)
        values = maps.flatten(-2).gather(-1, index)
        return finite(computable(values)).view(-1, maps.shape[1], size[1], size[0])
    every = torch.arange(len(maps), device=maps.device)
    windows = maps.unfold(-2, size[1], 1).unfold(-2, size[0], 1)
    return finite(computable(windows[every, :, first[:, 1], first[:, 0]]))


def first_pixel(
    center: Tensor, reach: int, size: Sequence[int], maps: Tensor
) -> Tensor:
    """First pixels of windows around a centre, moved onto the map at its border."""
    height, width = size_of(maps)
    last = vector(width - size[0], height - size[1], like=center)
    return torch.minimum((center - reach).clamp(min=0), last)


@table
def _window_blur(length: int, kernel_size: int, size: int) -> np.ndarray:
    """Blurs of an axis at the pixels of windows, from the pixels under them.

    Returns:
        Shape (length - size + 1, size, U): matrix ``i`` is for the window that begins
        at pixel ``i``. There are ``U = size + kernel_size - 1`` pixels under it, which
        begin where :func:`first_pixel` puts them.
    """
    matrix = blur_matrix(length, kernel_size)
    under = min(size + kernel_size - 1, length)
    blurs = []
    for first in range(length - size + 1):
        start = min(max(first - kernel_size // 2, 0), length - under)
        blurs.append(matrix[first : first + size, start : start + under])
    return np.stack(blurs)


def blurred_crop(
    maps: Tensor, first: Tensor, size: Sequence[int], kernel_size: int
) -> Tensor:
    """Windows of blurred maps, of which no more is blurred. See :func:`crop`."""
    height, width = size_of(maps)
    under = (
        min(size[0] + kernel_size - 1, width),
        min(size[1] + kernel_size - 1, height),
    )
    values = crop(maps, first_pixel(first, kernel_size // 2, under, maps), under)
    x = _window_blur(width, kernel_size, size[0], like=values)[first[:, 0], None]
    y = _window_blur(height, kernel_size, size[1], like=values)[first[:, 1], None]
    return y @ values @ x.transpose(-1, -2)
