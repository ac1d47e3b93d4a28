"""Windows of maps, and blurs as OpenCV makes them."""

from functools import lru_cache, wraps
from typing import Callable, Iterator, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_kernel_size, check_maps
from .geometry import constant, unit_length

#: OpenCV's Gaussian kernels of up to 9 px, which do not follow its formula.
SMALL_KERNELS = {
    1: (1.0,),
    3: (1.0, 2.0, 1.0),
    5: (1.0, 4.0, 6.0, 4.0, 1.0),
    7: (2.0, 7.0, 14.0, 18.0, 14.0, 7.0, 2.0),
    9: (4.0, 13.0, 30.0, 51.0, 60.0, 51.0, 30.0, 13.0, 4.0),
}


def gaussian_kernel_sigma(kernel_size: int) -> float:
    """The sigma that OpenCV gives a Gaussian kernel of this size, in px.

    Args:
        kernel_size: In px.

    Example:
        >>> round(gaussian_kernel_sigma(11), 6)
        2.0
    """
    return 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8


def longest_step(kernel_size: int) -> float:
    """How far DARK's step may lead from the argmax, heatmap px on each axis.

    It is the blur's sigma, which is about the Gaussian's, since noise moves the argmax
    in proportion to that; but a pixel at least. Where a Gaussian is as wide as its blur
    and white noise at most 10 % as high, that cuts off no step.

    Example:
        >>> longest_step(3), round(longest_step(23), 6)
        (1.0, 3.8)
    """
    return max(1.0, gaussian_kernel_sigma(kernel_size))


def gaussian(reach: int, sigma: float) -> np.ndarray:
    """Weights of a Gaussian at ``-reach ... reach`` px, summing to 1."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def opencv_kernel(kernel_size: int) -> np.ndarray:
    """``cv2.getGaussianKernel(kernel_size, 0)``, whose small ones are tables."""
    if kernel_size in SMALL_KERNELS:
        weights = np.array(SMALL_KERNELS[kernel_size])
        return weights / weights.sum()
    return gaussian(kernel_size // 2, gaussian_kernel_sigma(kernel_size))


@lru_cache(maxsize=64)
def blur_matrix(length: int, kernel_size: int) -> np.ndarray:
    """A blur along an axis as a square matrix, which is banded.

    Borders are reflected without repeating the edge (OpenCV's ``BORDER_REFLECT_101``).
    """
    (last,) = unit_length((length,))
    reach = kernel_size // 2
    rows = np.arange(length)[:, None]
    columns = (rows + np.arange(-reach, reach + 1)) % (2 * last)
    columns = last - abs(last - columns)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (rows, columns), opencv_kernel(kernel_size))
    return matrix


def blur(maps: Tensor, kernel_size: int) -> Tensor:
    """Blur maps as ``cv2.GaussianBlur(map, (k, k), 0)`` does.

    Args:
        maps: Shape (..., K, H, W); a pixel that is not finite counts as 0.
        kernel_size: ``k`` in px, odd; the kernel is OpenCV's for that size. Borders
            are reflected without repeating the edge.

    Returns:
        New maps of the same shape.

    Raises:
        TypeError, ValueError: ``maps`` or ``kernel_size`` is not as said.

    Example:
        >>> blur(torch.eye(5)[None], 3)[0, 2]
        tensor([0.1250, 0.2500, 0.3750, 0.2500, 0.1250])
    """
    check_maps(maps)
    check_kernel_size(kernel_size)
    return blurred(finite(maps), kernel_size)


def blurred(maps: Tensor, kernel_size: int) -> Tensor:
    """:func:`blur` of finite maps."""
    height, width = map(int, maps.shape[-2:])
    x = constant(blur_matrix(width, kernel_size), maps)
    y = constant(blur_matrix(height, kernel_size), maps)
    # Products with x and y, by the blocks around their diagonals.
    columns, rows = _blocks(width, kernel_size), _blocks(height, kernel_size)
    maps = torch.cat([maps[..., near] @ x[to, near].T for to, near in columns], -1)
    return torch.cat([y[to, near] @ maps[..., near, :] for to, near in rows], -2)


def _blocks(length: int, kernel_size: int) -> Iterator[Tuple[slice, slice]]:
    """Parts of an axis, and the pixels that the blur of each is made from."""
    size, reach = 32 if length > 64 else length, kernel_size // 2
    for start in range(0, length, size):
        yield (
            slice(start, start + size),
            slice(max(start - reach, 0), start + size + reach),
        )


def finite(maps: Tensor) -> Tensor:
    """Maps in a dtype to compute in, with 0 for what is not finite."""
    half = maps.dtype in (torch.float16, torch.bfloat16)
    maps = maps.float() if half or not maps.is_floating_point() else maps
    return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)


def full_precision(function: Callable) -> Callable:
    """Keep autocast, under which models run, from rounding what it computes to half.

    Args:
        function: Its first argument is a tensor, whose device tells of autocast.
    """

    @wraps(function)
    def in_full_precision(maps: Tensor, *args, **kwargs):
        if maps.device.type not in ('cpu', 'cuda'):
            return function(maps, *args, **kwargs)
        with torch.autocast(maps.device.type, enabled=False):
            return function(maps, *args, **kwargs)

    return in_full_precision


def windows(maps: Tensor, center: Tensor, size: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Windows around pixels, moved onto the map where they would reach beyond it.

    Args:
        maps: Shape (N, C, H, W); the C maps share their window.
        center: The windows' middle pixels (x, y), shape (N, 2), integer.
        size: ``(P, Q)``, the windows' columns and rows, at most those of the maps.

    Returns:
        tuple: windows (N, C, Q, P), made :func:`finite`, and their first pixels (N, 2).
    """
    height, width = map(int, maps.shape[-2:])
    half, last = (size[0] // 2, size[1] // 2), (width - size[0], height - size[1])
    half, last, steps = torch.tensor([half, last, (1, width)], device=center.device)
    first = torch.minimum((center - half).clamp(min=0), last)
    inside = np.arange(size[0]) + width * np.arange(size[1])[:, None]
    inside = torch.from_numpy(inside.ravel()).to(center.device)
    index = (first * steps).sum(-1, keepdim=True) + inside
    index = index[:, None].expand(-1, maps.shape[1], -1)
    values = finite(maps.flatten(-2).gather(-1, index))
    return values.view(-1, maps.shape[1], size[1], size[0]), first


def blurred_around(maps: Tensor, peak: Tensor, stencils: Sequence[np.ndarray]):
    """The blurred maps at a few pixels around a peak, and no more of them.

    Args:
        maps: Shape (N, C, H, W).
        peak: Shape (N, 2), (x, y), integer.
        stencils: For x and y: the weights of the S wanted pixels for each place of the
            peak, shape (W, S, P) and (H, S, Q), on a window as :func:`windows` puts it.

    Returns:
        Shape (N, C, S, S).
    """
    size = [stencil.shape[-1] for stencil in stencils]
    values, _ = windows(maps, peak, size)
    x, y = (constant(stencil, values) for stencil in stencils)
    return y[peak[:, 1], None] @ values @ x[peak[:, 0], None].transpose(-1, -2)


@lru_cache(maxsize=64)
def blur_stencil(length: int, kernel_size: int) -> np.ndarray:
    """:func:`blur_matrix` as a stencil of one pixel, shape (length, 1, P)."""
    matrix = blur_matrix(length, kernel_size)
    size = min(kernel_size, length)
    first = np.clip(np.arange(length) - size // 2, 0, length - size)
    index = first[:, None] + np.arange(size)
    return np.take_along_axis(matrix, index, 1)[:, None]
