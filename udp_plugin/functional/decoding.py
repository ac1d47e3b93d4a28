"""Maps to keypoints: argmax (Eq. 18), DARK's step, and the offsets of Eq. 29.

Keypoints are in heatmap px (see :mod:`.geometry`). Maps may have any leading
dimensions, any device and any floating dtype; half precision is computed in
float32. Nothing is changed in place. Whatever the maps hold, coordinates are
finite and within the map: a pixel that is NaN or infinite counts as 0, and a map
without a peak (nothing above zero, or flat) gives the map's middle with score 0.
"""

import math
from functools import lru_cache, wraps
from typing import Callable, Iterator, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_kernel_size, check_positive
from .geometry import unit_length
from .tables import table, vector

#: The ways to read offset maps, see :func:`decode_offset`.
READINGS = ('voting', 'authors', 'toolbox')

#: Blurs of the authors' code for the classification map and for the offsets.
AUTHORS_KERNELS = (15, 7)

#: Voting: the share of R that is the sigma of its window, how often the window moves
#: to where its pixels point, and the spread of their votes, as a share of R, at which
#: they agree by half. Chosen on networks trained on drawn figures.
VOTING_WINDOW = 1 / 3
VOTING_ROUNDS = 5
VOTING_SPREAD = 1 / 6

#: OpenCV's Gaussian kernels of up to 9 px, which do not follow its formula.
SMALL_KERNELS = {
    1: (1.0,),
    3: (1.0, 2.0, 1.0),
    5: (1.0, 4.0, 6.0, 4.0, 1.0),
    7: (2.0, 7.0, 14.0, 18.0, 14.0, 7.0, 2.0),
    9: (4.0, 13.0, 30.0, 51.0, 60.0, 51.0, 30.0, 13.0, 4.0),
}

#: So many pixels are searched at a time, two megabytes.
CACHED_PIXELS = 2**19

#: So few pixels are sooner blurred than searched for what has to be.
FEW_PIXELS = 2**17

#: A map varying by less than this share of its maximum is flat: more than the
#: rounding of a blur in float32, less than any peak.
FLAT = 1e-5


def gaussian_kernel_sigma(kernel_size: int) -> float:
    """The sigma that OpenCV gives a Gaussian kernel of this size, in px.

    Example:
        >>> round(gaussian_kernel_sigma(11), 6)
        2.0
    """
    return 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8


def _full_precision(function: Callable) -> Callable:
    """Keep autocast, under which models run, from rounding coordinates to half."""

    @wraps(function)
    def in_full_precision(maps, *args, **kwargs):
        device = maps.device.type if isinstance(maps, Tensor) else 'cpu'
        if device not in ('cpu', 'cuda'):
            return function(maps, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(maps, *args, **kwargs)

    return in_full_precision


def _gaussian(reach: int, sigma: float) -> np.ndarray:
    """Weights of a Gaussian at ``-reach ... reach``, summing to 1."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def _opencv_kernel(kernel_size: int) -> np.ndarray:
    """``cv2.getGaussianKernel(kernel_size, 0)``, whose small ones are tables."""
    if kernel_size in SMALL_KERNELS:
        weights = np.array(SMALL_KERNELS[kernel_size])
        return weights / weights.sum()
    return _gaussian(kernel_size // 2, gaussian_kernel_sigma(kernel_size))


def _reflect(index, last: int):
    """Indices beyond ``0 ... last`` reflected, without repeating the edge."""
    index = index % (2 * last)
    return last - abs(last - index)


@lru_cache(maxsize=64)
def _blur_matrix(length: int, kernel_size: int) -> np.ndarray:
    """A blur along an axis, reflected borders included, as a square matrix."""
    (last,) = unit_length((length,))
    reach = kernel_size // 2
    rows = np.arange(length)[:, None]
    matrix = np.zeros((length, length))
    columns = _reflect(rows + np.arange(-reach, reach + 1), last)
    np.add.at(matrix, (rows, columns), _opencv_kernel(kernel_size))
    return matrix


_blur_weights = table(_blur_matrix)


def _blocks(length: int, kernel_size: int) -> Iterator[Tuple[slice, slice]]:
    """Parts of an axis, and the pixels that the blur of each is made from."""
    size = 32 if length > 64 else length
    for start in range(0, length, size):
        first = max(start - kernel_size // 2, 0)
        yield (
            slice(start, start + size),
            slice(first, start + size + kernel_size // 2),
        )


def _blur(maps: Tensor, kernel_size: int) -> Tensor:
    height, width = maps.shape[-2:]
    x = _blur_weights(width, kernel_size, like=maps)
    y = _blur_weights(height, kernel_size, like=maps)
    columns = _blocks(width, kernel_size)
    maps = torch.cat([maps[..., from_] @ x[to, from_].T for to, from_ in columns], -1)
    rows = _blocks(height, kernel_size)
    return torch.cat([y[to, from_] @ maps[..., from_, :] for to, from_ in rows], -2)


@_full_precision
def blur(maps: Tensor, kernel_size: int) -> Tensor:
    """Blur maps as ``cv2.GaussianBlur(map, (k, k), 0)`` does.

    Args:
        maps: Shape (..., K, H, W).
        kernel_size: ``k``, odd; the kernel is OpenCV's for that size. Borders
            are reflected without repeating the edge.

    Returns:
        New maps of the same shape.
    """
    _check_maps(maps)
    check_kernel_size(kernel_size)
    return _blur(_finite(_computable(maps)), kernel_size)


def _computable(maps: Tensor) -> Tensor:
    """Maps in a dtype to compute in."""
    if not maps.is_floating_point() or maps.dtype in (torch.float16, torch.bfloat16):
        return maps.float()
    return maps


def _finite(maps: Tensor) -> Tensor:
    """Maps with 0 for what is not finite."""
    return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)


def _check_maps(maps: Tensor) -> None:
    if not isinstance(maps, Tensor):
        raise TypeError(f'maps must be a torch.Tensor, got {type(maps).__name__}')
    if maps.ndim < 3 or min(maps.shape[-2:]) < 3:
        raise ValueError(
            'maps must have shape (..., K, H, W) with H and W of at least 3, got '
            f'{tuple(maps.shape)}'
        )


def _find_peaks(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """The argmax pixels of any maps (N, H, W), and their values (N).

    Returns:
        tuple: Shape (N, 2), (x, y), integer: the map's middle where there is no
        peak; and (N), 0 there.
    """
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2)
    score, index = flat.max(-1)
    found = (score > 0) & (score - flat.amin(-1) > FLAT * score)
    middle = height // 2 * width + width // 2
    return _pixel(torch.where(found, index, middle), width), score * found


def _pixel(index: Tensor, width: int) -> Tensor:
    """Pixels (..., 2), (x, y), of indices into flat maps of this width."""
    y = torch.div(index, width, rounding_mode='floor')
    return torch.stack((index - y * width, y), -1)


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
        rest = (~sure).nonzero()[:, 0]
        peak[rest], score[rest] = plainly(_finite(maps[rest]))


def _bands(maps: Tensor, multiple: int = 1) -> Tensor:
    """Maps (N, H, W) as bands of rows, since longer runs of pixels are faster to read.

    Of two rows, or as many as make the pixels of a band a multiple, if the map's
    height allows.
    """
    height, width = maps.shape[-2:]
    rows = [r for r in (2, 4, 8, 16) if height % r == 0 and r * width % multiple == 0]
    return maps.unflatten(-2, (-1, rows[0] if rows else 1)).flatten(-2)


def _peaks(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """As :func:`_find_peaks`, in one pass over the maps.

    The maxima of bands of rows say in which band the peak is. NaN and infinity show
    in the maximum, and a flat map in its band.
    """
    bands = _bands(maps)
    first = bands.amax(-1).argmax(-1)
    band = bands[torch.arange(len(maps), device=maps.device), first]
    score, index = band.max(-1)
    peak = _pixel(index + first * bands.shape[-1], maps.shape[-1])
    sure = (score < math.inf) & (score - band.amin(-1) > FLAT * score) & (score > 0)
    _mend(maps, sure, peak, score, _find_peaks)
    return peak, score


def _last(maps: Tensor, like: Tensor) -> Tensor:
    """The last pixel of maps, (x, y)."""
    return vector(*unit_length(maps.shape[:-3:-1]), like=like)


def _within(keypoints: Tensor, maps: Tensor) -> Tensor:
    """Keypoints moved onto the map, if they are not."""
    return torch.minimum(keypoints.clamp(min=0), _last(maps, keypoints))


def _crop(maps: Tensor, first: Tensor, size: Sequence[int]) -> Tensor:
    """Windows of maps.

    Args:
        maps: Shape (N, C, H, W); the C maps share their window.
        first: The windows' first pixels, shape (N, 2), (x, y), integer; the windows
            lie within the map.
        size: ``(P, Q)``, the windows' columns and rows.

    Returns:
        Shape (N, C, Q, P), of a dtype to compute in.
    """
    every = torch.arange(len(maps), device=maps.device)
    windows = maps.unfold(-2, size[1], 1).unfold(-2, size[0], 1)
    return _computable(windows[every, :, first[:, 1], first[:, 0]])


def _first(center: Tensor, reach: int, size: Sequence[int], maps: Tensor) -> Tensor:
    """First pixels of windows around a centre, moved onto the map at its border."""
    height, width = maps.shape[-2:]
    last = vector(width - size[0], height - size[1], like=center)
    return torch.minimum((center - reach).clamp(min=0), last)


@table
def _window_blur(length: int, kernel_size: int, size: int) -> np.ndarray:
    """Blurs of an axis at the pixels of windows, from the pixels under them.

    Returns:
        Shape (length - size + 1, size, P): matrix ``i`` is for the window that begins
        at pixel ``i``, and takes the ``P`` pixels of :func:`_under`.
    """
    matrix = _blur_matrix(length, kernel_size)
    under = min(size + kernel_size - 1, length)
    return np.stack(
        [
            matrix[first : first + size, start : start + under]
            for first in range(length - size + 1)
            for start in [min(max(first - kernel_size // 2, 0), length - under)]
        ]
    )


def _maxima(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """Maxima, at least 0, of the bands (N, H / 2 or H) and columns (N, W) of maps."""
    height, width = maps.shape[-2:]
    row_max, column_max = [], []
    # The second pass over some maps finds them in the processor's cache.
    for some in maps.split(CACHED_PIXELS // (height * width) + 1):
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
    weights = _opencv_kernel(kernel_size)
    disc = x**2 + x[:, None] ** 2 <= radius**2
    middle = slice(x.size // 2 - kernel_size // 2, x.size // 2 + kernel_size // 2 + 1)
    peak = weights @ disc[middle, middle] @ weights
    maxima = np.maximum(np.abs(x) <= radius, 0.15)
    bound = np.convolve(maxima, weights, 'same')[x.size // 2 :]
    return max(int((bound >= peak).sum()), math.ceil(radius) + 1)


def _blurred_peaks(
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
        See :func:`_find_peaks`; the values are of the blurred maps.
    """
    height, width = maps.shape[-2:]

    def plainly(rest: Tensor) -> Tuple[Tensor, Tensor]:
        blurred = torch.zeros_like(rest)
        some = (rest.amax((-2, -1)) > 0).nonzero()[:, 0]
        rest = rest[some]
        # Reflected borders can raise the blurred map highest where H itself is empty.
        blurred[some] = torch.where(rest > 0, _blur(rest, kernel_size), 0.0)
        return _peaks(blurred)

    if maps.numel() <= FEW_PIXELS:
        return plainly(_finite(maps))

    blur_columns = _blur_weights(width, kernel_size, like=maps).T
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
    first = _first(center, reach, size, maps)
    under = (
        min(size[0] + kernel_size - 1, width),
        min(size[1] + kernel_size - 1, height),
    )
    values = _crop(maps[:, None], _first(first, kernel_size // 2, under, maps), under)
    blur_x = _window_blur(width, kernel_size, size[0], like=maps)[first[:, 0]]
    blur_y = _window_blur(height, kernel_size, size[1], like=maps)[first[:, 1]]
    blurred = (blur_y @ values[:, 0] @ blur_x.transpose(-1, -2)).flatten(-2)
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

    _mend(maps, sure, peak, score, plainly)
    return peak, score


@table
def _band_blur(length: int, kernel_size: int, rows: int) -> np.ndarray:
    """Blurs at each pixel of an axis from bands of ``rows`` pixels, to multiply by."""
    return _blur_matrix(length, kernel_size).reshape(length, -1, rows).sum(-1).T


@table
def _outside(length: int, size: int) -> np.ndarray:
    """1 outside a window that begins at pixel ``i``, for each ``i``."""
    x = np.arange(length)
    first = np.arange(length - size + 1)[:, None]
    return 1.0 - ((x >= first) & (x < first + size))


def decode_argmax(maps: Tensor, quarter: bool = True) -> Tuple[Tensor, Tensor]:
    """The biased decoding (Eq. 18): argmax, and a quarter pixel towards the
    higher neighbour on each axis.

    Args:
        maps: Shape (..., K, H, W).
        quarter: Make the quarter step, except at the border pixels where the
            toolbox makes none.

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K).
    """
    _check_maps(maps)
    flat = _computable(maps).flatten(0, -3)
    peak, score = _peaks(flat)
    keypoints = peak.to(flat.dtype)
    if quarter:
        inner = (peak > 1) & (peak < _last(maps, peak)) & (peak.flip(-1) > 0)
        left = torch.minimum((peak - 1).clamp(min=0), _last(maps, peak) - 2)
        row = _crop(flat[:, None], torch.stack((left[:, 0], peak[:, 1]), -1), (3, 1))
        column = _crop(flat[:, None], torch.stack((peak[:, 0], left[:, 1]), -1), (1, 3))
        around = _finite(torch.stack((row[:, 0, 0], column[:, 0, :, 0]), 1))
        slope = around[..., 2] - around[..., 0]
        keypoints = keypoints + 0.25 * slope.sign() * (inner & (score > 0)[:, None])
    return _like_maps(keypoints, score, maps.shape[:-2])


def _like_maps(
    keypoints: Tensor, score: Tensor, shape: Sequence[int]
) -> Tuple[Tensor, Tensor]:
    """Keypoints (..., K, 2) and scores (..., K) of maps with these leading axes."""
    return keypoints.view(*shape, 2), score.view(*shape)


@table
def _stencil_blur(length: int, kernel_size: int) -> np.ndarray:
    """Blurs of an axis at the three pixels of DARK's step, for each peak.

    The blur reaches as far as there are pixels on both sides, and its sigma shrinks
    with its reach.

    Returns:
        Shape (length, 3, P), for windows of ``P = 2 * (kernel_size // 2) + 3`` pixels
        around the peak, or as many as there are.
    """
    full = kernel_size // 2
    size = min(2 * full + 3, length)
    blurs = np.zeros((length, 3, size))
    for peak in range(length):
        center = min(max(peak, 1), length - 2)
        first = min(max(peak - full - 1, 0), length - size)
        reach = min(center - 1, length - 2 - center, full)
        if reach == full:
            weights = _opencv_kernel(kernel_size)
        else:
            sigma = gaussian_kernel_sigma(kernel_size) * max(reach, 0.5) / full
            weights = _gaussian(reach, sigma)
        for row in range(3):
            start = center - 1 + row - reach - first
            blurs[peak, row, start : start + weights.size] = weights
    return blurs


@table
def _differences() -> np.ndarray:
    """What 3 x 3 pixels are multiplied by for dx, dy, dxx, dyy and dxy."""
    return (
        np.array(
            [
                [[0, 0, 0], [-1, 0, 1], [0, 0, 0]],
                [[0, -1, 0], [0, 0, 0], [0, 1, 0]],
                [[0, 0, 0], [2, -4, 2], [0, 0, 0]],
                [[0, 2, 0], [0, -4, 0], [0, 2, 0]],
                # Seven of the nine pixels, as in the authors' code.
                [[1, -1, 0], [-1, 2, -1], [0, -1, 1]],
            ]
        )
        .reshape(5, 9)
        .T
        / 2
    )


def dark_kernel_size(sigma: float) -> int:
    """The widest blur that stays within a target cut off at three sigma.

    It is the ``6 sigma - 1`` that DARK's configs use: 11 for sigma 2, 17 for 3.
    """
    return 2 * max(int(3 * sigma) - 1, 0) + 1


@_full_precision
def decode_dark(maps: Tensor, kernel_size: int) -> Tuple[Tensor, Tensor]:
    """The unbiased decoding of Gaussian maps: DARK's Newton step.

    From the argmax, one Newton step on the logarithm of the blurred map, with
    finite differences over 3 x 3 pixels. At the border, where the toolbox
    differs, the window moves inwards and the blur shrinks to the pixels there
    are, since the logarithm of a Gaussian is as quadratic there as anywhere.
    The step ends at most one pixel an axis from the argmax, and none is made
    where the map does not curve down on all sides.

    Args:
        maps: Shape (..., K, H, W).
        kernel_size: Size of the blur in px, odd; see :func:`dark_kernel_size`.

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K), the
        maximum of each map.
    """
    _check_maps(maps)
    check_kernel_size(kernel_size)
    flat = _computable(maps).flatten(0, -3)
    peak, score = _peaks(flat)

    height, width = flat.shape[-2:]
    reach = kernel_size // 2 + 1
    size = min(2 * reach + 1, width), min(2 * reach + 1, height)
    first = _first(peak, reach, size, flat)
    values = _finite(_crop(flat[:, None], first, size)[:, 0])
    blur_x = _stencil_blur(width, kernel_size, like=flat)[peak[:, 0]]
    blur_y = _stencil_blur(height, kernel_size, like=flat)[peak[:, 1]]
    v = (blur_y @ values @ blur_x.transpose(-1, -2)).flatten(-2)

    floor = (1e-3 * v.amax(-1, keepdim=True)).clamp(min=1e-30)
    logarithm = torch.maximum(v, floor).log()
    dx, dy, dxx, dyy, dxy = (logarithm @ _differences(like=flat)).unbind(-1)
    det = dxx * dyy - dxy**2
    curved = (dxx < 0) & (det > 1e-9) & (score > 0)
    step = torch.stack((dxy * dy - dyy * dx, dxy * dx - dxx * dy), -1)
    step = step / torch.where(curved, det, 1.0)[:, None]
    # At the border, the step is made from the pixel next to it.
    inwards = torch.minimum(peak.clamp(min=1), _last(maps, peak) - 1) - peak
    step = (inwards + step).clamp(-1, 1)
    keypoints = peak + torch.where(curved[:, None], step, 0.0)
    return _like_maps(_within(keypoints, maps), score, maps.shape[:-2])


@_full_precision
def decode_offset(
    maps: Tensor,
    radius: float,
    reading: str = 'voting',
    kernel_size: Optional[int] = None,
) -> Tuple[Tensor, Tensor]:
    """The paper's decoding of offset maps (Eq. 29).

    The classification map H is blurred and its argmax taken, among the pixels
    where H is positive; there

    - ``'voting'`` takes the mean of the places that the pixels around the keypoint
      point to, weighted by their own H and by a Gaussian window, ``sigma = R / 3``::

          c = sum(w(p) * (p + R * offset(p))) / sum(w(p))
          w(p) = H(p) * exp(-|p - c|^2 / (2 sigma^2))

      over the pixels of a disc that lies around the argmax, where ``c`` starts
      and from which it moves five times. A network's offsets are the truer the
      shorter they are, and as much too short on one side of the keypoint as on
      the other;
    - ``'authors'`` adds ``R`` times the offsets, blurred by a 7 x 7 Gaussian
      (the authors' code);
    - ``'toolbox'`` adds ``R`` times the offsets as they are (MMPose 1.x).

    Args:
        maps: Shape (..., 3K, H, W); channels ``3k`` (H), ``3k + 1`` (X) and
            ``3k + 2`` (Y), see :func:`~.encoding.offset_target`.
        radius: ``R`` in heatmap px.
        reading: One of :data:`READINGS`.
        kernel_size: Size of the blur of H in px, odd. Defaults to that of the disc,
            ``4 R``, for ``'voting'``, and else to 15 (the authors' code).

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K). The score is
        the maximum of each blurred classification map; of ``'voting'`` it is the
        geometric mean of H's mean in the window and of ``1 / (1 + (6 s / R)^2)`` for
        votes that spread by ``s`` around their mean: 1 on perfect maps.

    Raises:
        ValueError: The maps' channels are no multiple of three, ``radius`` is not
            positive, ``reading`` is not known, or ``kernel_size`` is not odd.
    """
    _check_maps(maps)
    check_positive(radius, 'radius')
    if kernel_size is None:
        voting = reading == 'voting'
        kernel_size = 2 * int(2 * radius) + 1 if voting else AUTHORS_KERNELS[0]
    check_kernel_size(kernel_size)
    if maps.shape[-3] % 3:
        raise ValueError(
            'offset maps have three channels a keypoint, got maps of shape '
            f'{tuple(maps.shape)}, whose {maps.shape[-3]} channels are no multiple of 3'
        )
    if reading not in READINGS:
        raise ValueError(f'reading must be one of {READINGS}, got {reading!r}')
    flat = maps.reshape(-1, 3, *maps.shape[-2:])
    peak, score = _blurred_peaks(_computable(flat[:, 0]), kernel_size, radius)
    if reading == 'voting':
        shift, votes_score = _vote(flat, peak, radius)
        score = torch.where(score > 0, votes_score, score)
    elif reading == 'authors':
        shift = radius * _blurred_at(flat[:, 1:], peak, AUTHORS_KERNELS[1])
    else:
        shift = radius * _finite(_crop(flat[:, 1:], peak, (1, 1))).flatten(-3)
    keypoints = peak + torch.where((score > 0)[:, None], shift, 0.0)
    shape = *maps.shape[:-3], maps.shape[-3] // 3
    return _like_maps(_within(keypoints, maps), score, shape)


def _blurred_at(maps: Tensor, pixel: Tensor, kernel_size: int) -> Tensor:
    """Maps (N, C, H, W), blurred, at a pixel (N, 2) of each: shape (N, C)."""
    height, width = maps.shape[-2:]
    size = min(kernel_size, width), min(kernel_size, height)
    values = _crop(maps, _first(pixel, kernel_size // 2, size, maps), size)
    values = _finite(values)
    blur_x = _window_blur(width, kernel_size, 1, like=values)[pixel[:, 0]]
    blur_y = _window_blur(height, kernel_size, 1, like=values)[pixel[:, 1]]
    weights = blur_y.transpose(-1, -2) * blur_x
    return (values.flatten(-2) @ weights.flatten(-2)[..., None])[..., 0]


@table
def _grid(size_x: int, size_y: int) -> np.ndarray:
    """x and y of a window's pixels, counted from its middle one: shape (2, Q * P)."""
    y, x = np.mgrid[:size_y, :size_x]
    return np.stack((x - size_x // 2, y - size_y // 2)).reshape(2, -1).astype(float)


def _vote(maps: Tensor, peak: Tensor, radius: float) -> Tuple[Tensor, Tensor]:
    """Where the pixels around the keypoint point to, from the peak, and the score.

    Args:
        maps: Shape (N, 3, H, W).
        peak: Shape (N, 2), integer.

    Returns:
        tuple: Shape (N, 2), heatmap px, and (N).
    """
    height, width = maps.shape[-2:]
    # The keypoint is up to half a pixel an axis away from the peak.
    reach = radius + math.sqrt(0.5)
    pixels = math.ceil(reach)
    size = min(2 * pixels + 1, width), min(2 * pixels + 1, height)
    first = _first(peak, pixels, size, maps)
    values = _finite(_crop(maps, first, size)).flatten(-2)

    # In heatmap px from here on, counted from the window's middle pixel.
    grid = _grid(*size, like=values)
    start = (peak - first) + grid[:, 0]
    near = (grid - start[:, :, None]).square_().sum(1) <= reach**2
    classes = values[:, 0].clamp_(min=0).mul_(near)
    # Relative to the largest, so that tiny or huge maps neither vanish nor overflow.
    largest = classes.amax(-1).clamp(min=1e-30)
    classes.div_(largest[:, None])
    # No offset of a disc is longer; a wild one's overflow would become NaN.
    place = values[:, 1:].clamp_(-1, 1).mul_(radius).add_(grid)

    # The window exp(-|p - c|^2 / (2 sigma^2)) at pixels p, up to a factor that cancels
    # out: exp((p c - |p|^2 / 2) / sigma^2), cut off where c is far beyond the map.
    sigma = VOTING_WINDOW * radius
    towards = grid / sigma**2
    at_middle = grid.square().sum(0) / (-2 * sigma**2)
    center = start
    for _ in range(VOTING_ROUNDS):
        window = torch.addmm(at_middle, center, towards).clamp_(max=60).exp_()
        weights = window * classes
        total = weights.sum(-1).clamp(min=1e-30)
        center = (place @ weights[:, :, None])[:, :, 0] / total[:, None]
    square = (place - center[:, :, None]).square_().sum(1)
    spread = (weights * square).sum(-1) / total
    mean = largest * (total / window.sum(-1))
    agreement = 1 / (1 + spread / (VOTING_SPREAD * radius) ** 2)
    return center - start, (mean * agreement).sqrt()
