"""Where maps are highest, and where they are once they are blurred.

Maps have the shape (N, H, W) here. What is returned is for each map its peak's pixel
(N, 2), (x, y), integer, or the map's middle where it has no peak, and its value there
(N), or 0.
"""

import math
from functools import lru_cache
from typing import Callable, Tuple

import numpy as np
import torch
from torch import Tensor

from .blurring import (
    blur_matrix,
    blur_weights,
    blurred_crop,
    blurred_maps,
    finite,
    first_pixel,
    opencv_kernel,
)
from .recording import recording, size_of
from .tables import table, vector

#: So many pixels are searched at a time, two megabytes.
CACHED_PIXELS = 2**19

#: So few pixels are sooner blurred than searched for what has to be.
FEW_PIXELS = 2**17

#: A map varying by less than this share of its maximum is flat: more than the
#: rounding of a blur in float32, less than any peak.
FLAT = 1e-5


def _plain_peaks(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """The argmax pixels of any maps (N, H, W), and their values (N).

    Returns:
        tuple: Shape (N, 2), (x, y), integer: the map's middle where there is no
        peak; and (N), 0 there.
    """
    height, width = size_of(maps)
    flat = maps.flatten(-2)
    score, index = _highest_in_a_graph(maps) if recording() else flat.max(-1)
    found = (score > 0) & (score - flat.amin(-1) > FLAT * score)
    middle = height // 2 * width + width // 2
    return _pixel(torch.where(found, index, middle), width), score * found


def _highest_in_a_graph(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """``maps.flatten(-2).max(-1)`` of finite maps.

    In ONNX it would be two passes over the maps, and that of ArgMax takes several times
    as long as that of ReduceMax.
    """
    height, width = size_of(maps)
    pixels = width * (2 - height % 2)
    # Unlike unflatten, ONNX has had it for long.
    bands = maps.reshape(-1, height * width // pixels, pixels)
    score, first = bands.amax(-1).max(-1)
    band = bands.gather(1, first[:, None, None].expand(-1, 1, pixels))
    return score, band[:, 0].argmax(-1) + first * pixels


def _pixel(index: Tensor, width: int) -> Tensor:
    """Pixels (..., 2), (x, y), of indices into flat maps of this width."""
    y = torch.div(index, width, rounding_mode='floor')
    return torch.stack((index - y * width, y), -1)


def _at_once(maps: Tensor) -> int:
    """How many maps to work on at once: on a CPU, as many as its cache holds."""
    if maps.device.type != 'cpu':
        return max(len(maps), 1)
    height, width = maps.shape[-2:]
    return CACHED_PIXELS // (height * width) + 1


def _mend(
    maps: Tensor,
    sure: Tensor,
    peak: Tensor,
    score: Tensor,
    plainly: Callable[[Tensor], Tuple[Tensor, Tensor]],
) -> None:
    """Find anew the peaks of the maps of which the quick search is not sure.

    These are rare: maps with several peaks, without a peak, or not finite.
    """
    if not sure.all():
        for some in (~sure).nonzero()[:, 0].split(_at_once(maps)):
            peak[some], score[some] = plainly(finite(maps[some]))


def _bands(maps: Tensor, multiple: int = 1) -> Tensor:
    """Maps (N, H, W) as bands of rows, since longer runs of pixels are faster to read.

    Of two rows, or as many as make the pixels of a band a multiple, if the map's
    height allows.
    """
    height, width = maps.shape[-2:]
    rows = [r for r in (2, 4, 8, 16) if height % r == 0 and r * width % multiple == 0]
    return maps.unflatten(-2, (-1, rows[0] if rows else 1)).flatten(-2)


def peaks(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """As :func:`_plain_peaks`, in one pass over the maps.

    The maxima of bands of rows say in which band the peak is. NaN and infinity show
    in the maximum, and a flat map in its band.
    """
    if recording():
        return _plain_peaks(finite(maps))
    bands = _bands(maps)
    first = bands.amax(-1).argmax(-1)
    band = bands[torch.arange(len(maps), device=maps.device), first]
    score, index = band.max(-1)
    peak = _pixel(index + first * bands.shape[-1], maps.shape[-1])
    sure = (score < math.inf) & (score - band.amin(-1) > FLAT * score) & (score > 0)
    _mend(maps, sure, peak, score, _plain_peaks)
    return peak, score


def _maxima(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """Maxima, at least 0, of the bands (N, H / 2 or H) and columns (N, W) of maps."""
    width = maps.shape[-1]
    row_max, column_max = [], []
    # The second pass over some maps finds them in the processor's cache.
    for some in maps.split(_at_once(maps)):
        row_max.append(_bands(some).amax(-1))
        # Torch takes maxima across bands by vectors of 32.
        column_max.append(_bands(some, 32).amax(-2))
    column_max = torch.cat(column_max).unflatten(-1, (-1, width)).amax(-2)
    return torch.cat(row_max).clamp_(min=0), column_max.clamp_(min=0)


@lru_cache(maxsize=64)
def _search_reach(kernel_size: int, radius: float) -> int:
    """How far from a blurred disc's peak the blurred maxima are as high as it is.

    In px, of a disc on a background as high as noise may make it.
    """
    x = np.arange(math.ceil(radius) + kernel_size)
    x = np.concatenate((-x[:0:-1], x))
    weights = opencv_kernel(kernel_size)
    disc = x**2 + x[:, None] ** 2 <= radius**2
    middle = slice(x.size // 2 - kernel_size // 2, x.size // 2 + kernel_size // 2 + 1)
    peak = weights @ disc[middle, middle] @ weights
    maxima = np.maximum(np.abs(x) <= radius, 0.15)
    bound = np.convolve(maxima, weights, 'same')[x.size // 2 :]
    return max(int((bound >= peak).sum()), math.ceil(radius) + 1)


def blurred_peaks(
    maps: Tensor, kernel_size: int, radius: float
) -> Tuple[Tensor, Tensor]:
    """The peaks of blurred maps (N, H, W), among the pixels where maps are positive.

    Only a window around the peak is blurred. No pixel of the blurred map is higher
    than the blurred maxima of the map's columns are at its column, nor than those of
    the rows at its row: where these are lower outside the window than the peak
    found in it, that is the map's.

    Args:
        maps: Classification maps, of discs.
        radius: Of the discs.

    Returns:
        See :func:`_plain_peaks`; the values are of the blurred maps.
    """

    def plainly(some: Tensor) -> Tuple[Tensor, Tensor]:
        # Reflected borders can raise the blurred map highest where H itself is empty.
        blurred = blurred_maps(some, kernel_size).mul_(some > 0)
        return _plain_peaks(blurred) if recording() else peaks(blurred)

    if recording() or maps.numel() <= FEW_PIXELS:
        return plainly(finite(maps))

    height, width = maps.shape[-2:]
    blur_columns = blur_weights(width, kernel_size, like=maps).T
    row_max, column_max = _maxima(maps)
    column_bound = column_max @ blur_columns
    rows = height // row_max.shape[-1]
    row_bound = row_max @ _band_blur(height, kernel_size, rows, like=maps)
    every = torch.arange(len(maps), device=maps.device)
    y = row_bound.argmax(-1)
    x = (maps[every, y] @ blur_columns).argmax(-1)
    center = torch.stack((x, y), -1)

    reach = _search_reach(kernel_size, radius)
    size = min(2 * reach + 1, width), min(2 * reach + 1, height)
    first = first_pixel(center, reach, size, maps)
    blurred = blurred_crop(maps[:, None], first, size, kernel_size).flatten(1)
    score, index = blurred.max(-1)
    peak = first + _pixel(index, size[0])

    def bounded(bound: Tensor, axis: int) -> Tensor:
        outside = _outside(bound.shape[-1], size[axis], like=maps)[first[:, axis]]
        return (bound * outside).amax(-1) <= score

    value = maps.flatten(-2).gather(-1, (peak[:, 1:] * width + peak[:, :1]))[:, 0]
    sure = (
        bounded(column_bound, 0)
        & bounded(row_bound, 1)
        & (value > 0)
        & (score - blurred.amin(-1) > FLAT * score)
    )
    empty = row_max.amax(-1) <= 0
    peak = torch.where(empty[:, None], vector(width // 2, height // 2, like=peak), peak)
    score = torch.where(empty, 0.0, score)
    _mend(maps, sure | empty, peak, score, plainly)
    return peak, score


@table
def _band_blur(length: int, kernel_size: int, rows: int) -> np.ndarray:
    """Blurs at each pixel of an axis from bands of ``rows`` pixels, to multiply by."""
    return blur_matrix(length, kernel_size).reshape(length, -1, rows).sum(-1).T


@table
def _outside(length: int, size: int) -> np.ndarray:
    """1 outside a window that begins at pixel ``i``, for each ``i``."""
    x = np.arange(length)
    first = np.arange(length - size + 1)[:, None]
    return 1.0 - ((x >= first) & (x < first + size))
