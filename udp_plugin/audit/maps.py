"""Flip alignment of anybody's predictions, from output maps alone.

A network of whatever framework has seen images and their mirror images. Its maps of
the latter, mirrored back, should lie on those of the former; by how much they do not
is what a biased measure leaves (Eq. 36, 39 and 46 of arXiv:1911.07524v2). Nothing but
the maps is needed, and nothing of a toolbox.

Letters of shapes: N samples, K keypoints, C channels of the maps (K, or 3K with the
offset codec), H and W the maps' height and width, M maps.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from udp_plugin import functional as F
from udp_plugin.errors import UserError

from .maps_result import MapsAudit

#: Maps a keypoint: offset maps are H, X and Y.
CHANNELS = {'gaussian': 1, 'offset': 3}
#: A Gaussian is at least half as high as its peak on ``HALF_AREA * sigma^2`` pixels.
HALF_AREA = 2 * math.pi * math.log(2)
#: A peak is farther from the border than so many sigma, and than so many pixels.
BORDER_SIGMA, BORDER_PIXELS = 1.5, 2.5
#: Half-high pixels are no farther from their mean than so many sigma an axis; and of
#: peaks that are farther apart than so many sigma, neither is the other one shifted.
REACH_SIGMA = 3.0
#: A peak lower than this part of the highest ones is not clear.
LOW = 0.2
#: The window in which a peak is located ends so many of its sigma from the border;
#: it is no narrower than so many pixels, or pixels would be too coarse for it.
WINDOW_REACH, WINDOW_LEAST = 3.0, 0.9
#: Newton's steps towards a peak; of a Gaussian the first one suffices.
STEPS = 4
#: The offsets of a disc of radius r fall by 1 over r, give or take this factor.
SLOPE_FACTOR = 3.0
#: So many numbers of the maps are worked on at a time.
NUMBERS_AT_ONCE = 2**21


def audit_maps(
    file: Union[str, Path],
    codec: str = 'gaussian',
    input_size: Optional[Sequence[int]] = None,
    flip_indices: Optional[Sequence[int]] = None,
) -> MapsAudit:
    """Measure the maps of a file, see :func:`read_maps` and :func:`measure_maps`.

    Args:
        file: ``.npy`` or ``.npz``.
        codec: ``'gaussian'`` or ``'offset'``.
        input_size, flip_indices: If they are known.

    Raises:
        UserError: The file holds something else, or nothing in it can be measured.
    """
    channels = CHANNELS[codec]
    maps = read_maps(file, channels)
    return measure_maps(*maps, channels, flip_indices, input_size)


def read_maps(
    path: Union[str, Path], channels: int = 1
) -> Tuple[np.ndarray, np.ndarray]:
    """Read the maps of images and of their mirror images.

    Args:
        path: A ``.npy`` file of shape (2, N, C, H, W), first of the images, then of
            the mirrored ones, or a ``.npz`` file with the arrays ``maps`` and
            ``mirrored``, each of shape (N, C, H, W).
        channels: Maps a keypoint: 1, or 3 (H, X, Y) with the offset codec.

    Returns:
        tuple: ``maps`` and ``mirrored``, each of shape (N, C, H, W).

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    said = f'--maps {path}'
    try:
        # A file of gigabytes is read piece by piece.
        content = np.load(path, mmap_mode='r', allow_pickle=False)
        if isinstance(content, np.ndarray):
            if content.ndim != 5 or len(content) != 2:
                raise UserError(
                    f'{said}: expected an array of shape (2, N, C, H, W), maps of the '
                    f'images and of the mirrored images, got shape {content.shape}'
                )
            maps, mirrored = content
        else:
            with content:
                if not {'maps', 'mirrored'}.issubset(content.files):
                    raise UserError(
                        f'{said}: a .npz file needs the arrays maps and mirrored, got '
                        f'{", ".join(content.files) or "none"}'
                    )
                maps, mirrored = content['maps'], content['mirrored']
    except OSError as error:
        raise UserError(f'{said}: cannot be read: {error.strerror or error}') from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f'{said}: expected numbers in a .npy file of shape (2, N, C, H, W) '
            'or in a .npz file with the arrays maps and mirrored, got a file that '
            'NumPy does not read as such (pickled objects are not read)'
        ) from error
    _check(maps, mirrored, channels, said)
    return maps, mirrored


def measure_maps(
    maps: np.ndarray,
    mirrored: np.ndarray,
    channels: int = 1,
    flip_indices: Optional[Sequence[int]] = None,
    input_size: Optional[Sequence[int]] = None,
) -> MapsAudit:
    """Measure how far flipped-back mirrored maps lie from direct ones.

    A map counts if it and its counterpart are finite and have a *clear peak*. Heights
    are above the map's median, and sigma is that of the Gaussian with as many pixels
    at least half as high as the peak (of a disc of radius R, ``0.85 R``). The peak is
    clear if these pixels lie together, none farther than three sigma from their mean
    on an axis; if that mean is at least 2.5 pixels and 1.5 sigma away from the map's
    border; and if it is at least a fifth as high as the higher peaks are (the 90th
    percentile). Peaks more than three sigma apart count as different places.

    It is where the map under a Gaussian blur about as wide as the peak is highest
    (:func:`_maximum`): the blur averages noise, and two maps of one shape, whatever it
    is, are found as far apart as they are. With the offset codec it is what the
    half-high pixels of the classification map H point to (:func:`_pointed_to`).

    Args:
        maps: The network's output for the images, shape (N, C, H, W).
        mirrored: Its output for the mirrored images, as it came, the same shape.
        channels: Maps a keypoint: 1, or 3 (H, X, Y) with the offset codec.
        flip_indices: For each of the K keypoints its counterpart's index; inferred if
            not given.
        input_size: Of the network's input, ``(width, height)`` in pixels, to say
            what the distances are in input px.

    Raises:
        UserError: The maps are not of such shapes, nothing in them is finite or
            clear, or ``flip_indices`` are none or cannot be inferred.

    Example:
        >>> y, x = np.mgrid[:32, :24]
        >>> def gaussian(m):
        ...     return np.exp(-((x - m) ** 2 + (y - 15.2) ** 2) / 8)[None, None]
        >>> found = measure_maps(gaussian(10), gaussian(23 - 9.25))
        >>> (found.shifts.round(4) + 0.0).tolist()
        [[-0.75, 0.0]]
    """
    maps, mirrored = np.asanyarray(maps), np.asanyarray(mirrored)
    _check(maps, mirrored, channels)
    keypoints = [*range(maps.shape[1] // channels)]
    if flip_indices is None:
        indices = infer_flip_indices(maps, mirrored, channels)
    else:
        indices = [int(index) for index in flip_indices]
        pairs = sorted(indices) == keypoints
        if not pairs or [indices[index] for index in indices] != keypoints:
            raise UserError(
                f'flip_indices must name for each of {len(keypoints)} keypoints its '
                'counterpart (from 0 on), whose counterpart it is in turn, got '
                f'{indices}'
            )
    height, width = maps.shape[2:]
    pieces = []
    for direct, other in _pieces(maps, mirrored):
        back = F.flip_maps(torch.from_numpy(other), indices, channels).numpy()
        pair = np.stack((direct, back)).reshape(2, -1, channels, height, width)
        # Numbers too large to be computed with make no clear peak.
        with np.errstate(over='ignore', invalid='ignore'):
            pieces.append(_compare(pair))
    compared = _Compared(*map(np.concatenate, zip(*pieces)))
    shifts, apart = _judge(compared, channels)
    return MapsAudit(
        shifts=shifts,
        maps_given=len(compared.finite),
        maps_apart=apart,
        heatmap_size=(width, height),
        flip_indices=tuple(indices),
        inferred=flip_indices is None,
        input_size=input_size,
    )


def _check(
    maps: np.ndarray, mirrored: np.ndarray, channels: int, said: str = '--maps'
) -> None:
    """Refuse what are no maps of images and of mirrored images."""
    if channels not in (1, 3):
        raise UserError(f'channels must be 1 or 3, got {channels!r}')
    for name, array in (('maps', maps), ('mirrored', mirrored)):
        must = f'{said}: {name} must be'
        if array.ndim != 4:
            raise UserError(f'{must} of shape (N, C, H, W), got shape {array.shape}')
        if array.dtype.kind not in 'fiu':
            raise UserError(f'{must} real numbers, got dtype {array.dtype}')
    shape, problem = maps.shape, ''
    if shape != mirrored.shape:
        problem = f'maps and mirrored must be of the same shape, got {shape} and '
        problem += f'{mirrored.shape}'
    elif 0 in shape:
        problem = f'no maps in arrays of shape {shape}'
    elif min(shape[2:]) < 2:
        problem = 'maps must be of at least 2 pixels an axis, got shape (N, C, H, W) = '
        problem += f'{shape}'
    elif shape[1] % channels:
        problem = f'the offset codec has {channels} channels a keypoint (H, X, Y), got '
        problem += f'{shape[1]} channels, which are no multiple of {channels}'
    if problem:
        raise UserError(f'{said}: {problem}')


def _pieces(
    maps: np.ndarray, mirrored: np.ndarray
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Some samples' maps at a time, as float64."""
    step = NUMBERS_AT_ONCE // maps[0].size + 1
    for start in range(0, len(maps), step):
        some = slice(start, start + step)
        # Numbers beyond float64 become infinite.
        with np.errstate(over='ignore'):
            yield maps[some].astype(np.float64), mirrored[some].astype(np.float64)


def infer_flip_indices(
    maps: np.ndarray, mirrored: np.ndarray, channels: int = 1
) -> List[int]:
    """Infer which channel of a mirrored image is which one of the image.

    Each channel is matched with the flipped-back mirrored one that resembles it: by
    correlation, summed over samples, so that the sum over channels is largest.

    Args:
        maps, mirrored, channels: See :func:`measure_maps`.

    Returns:
        For each of the K keypoints its counterpart's index.

    Raises:
        UserError: Nothing is finite, or what resembles each other are no pairs.
    """
    resemblance: Any = 0.0
    for direct, other in _pieces(maps, mirrored):
        back = other[:, ::channels, :, ::-1]
        one, two = (_standardised(each) for each in (direct[:, ::channels], back))
        resemblance = resemblance + (one @ two.transpose(0, 2, 1)).sum(0)
    if not resemblance.any():
        raise UserError(
            '--maps: there is nothing to measure: in no map of an image and of its '
            'mirror image are there finite numbers that differ'
        )
    indices = [int(index) for index in linear_sum_assignment(-resemblance)[1]]
    for k, index in enumerate(indices):
        if indices[index] != k:
            raise UserError(
                '--maps: flip_indices could not be inferred: keypoint '
                f'{k} of the images resembles keypoint {index} of the mirrored images, '
                f'but keypoint {index} resembles keypoint {indices[index]}; give '
                'flip_indices'
            )
    return indices


def _standardised(maps: np.ndarray) -> np.ndarray:
    """Maps (N, K, H, W) as vectors (N, K, H * W) of mean 0 and length 1.

    Those that are flat or not finite are all zero.
    """
    flat, _ = _scaled(maps.reshape(*maps.shape[:2], -1))
    flat -= flat.mean(-1, keepdims=True)
    length = np.sqrt((flat**2).sum(-1, keepdims=True))
    return flat / np.where(length > 0, length, 1.0)


def _scaled(maps: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Maps (..., P) divided by their largest number, and that (..., 1).

    So that no number of theirs is too large or too small to be computed with. Those
    that are not finite become zero, and their largest number NaN.
    """
    finite = np.isfinite(maps).all(-1, keepdims=True)
    maps = np.where(finite, maps, 0.0)
    largest = np.abs(maps).max(-1, keepdims=True)
    return maps / np.where(largest > 0, largest, 1.0), np.where(finite, largest, np.nan)


class _Compared(NamedTuple):
    """Of M maps and their counterparts, what decides whether they count."""

    finite: np.ndarray  #: Whether both are.
    clear: np.ndarray  #: Whether both have a clear peak, whose height aside.
    height: np.ndarray  #: Of the lower peak, in the maps' own numbers.
    shift: np.ndarray  #: From peak to peak, shape (M, 2), heatmap px; NaN if unknown.
    sigma: np.ndarray  #: Of the peaks, the mean of both, heatmap px.


def _compare(pair: np.ndarray) -> _Compared:
    """Compare maps with their flipped-back counterparts, (2, M, channels, H, W)."""
    heat, largest = _scaled(pair[:, :, 0].reshape(*pair.shape[:2], -1))
    heat -= np.median(heat, axis=-1, keepdims=True)
    top = heat.max(-1, keepdims=True)
    heat = heat.reshape(pair[:, :, 0].shape)
    # Pixels at least half as high as the peak; their mean, and how far they reach.
    high = (heat >= 0.5 * top[..., None]) & (top[..., None] > 0)
    count = np.maximum(high.sum((-2, -1)), 1)
    sigma = np.sqrt(count / HALF_AREA)
    places = _pixels(high.shape[-2:])
    center = np.tensordot(high.astype(float), places, 2) / count[..., None]
    reach = (np.abs(places - center[..., None, None, :]) * high[..., None]).max((2, 3))
    margin = np.minimum(center, F.unit_length(high.shape[:-3:-1]) - center).min(-1)
    height = (top * largest)[..., 0]
    clear = (height > 0) & (reach.max(-1) <= REACH_SIGMA * sigma)
    clear &= margin >= np.maximum(BORDER_PIXELS, BORDER_SIGMA * sigma)
    finite = np.isfinite(pair).all((0, 2, 3, 4))
    clear = finite & clear.all(0)
    sigma = sigma.mean(0)
    # In both maps the same blur, for the border of the nearer one.
    window = np.minimum(sigma, margin.min(0) / WINDOW_REACH)
    window = np.maximum(window, WINDOW_LEAST)[clear]
    if pair.shape[2] == 3:
        places = [_pointed_to(pair[i, clear, 1:], high[i, clear]) for i in range(2)]
    else:
        places = [_maximum(heat[i, clear], center[i, clear], window) for i in range(2)]
    shift = np.full((len(clear), 2), np.nan)
    shift[clear] = places[1] - places[0]
    return _Compared(finite, clear, height.min(0), shift, sigma)


def _pixels(size: Tuple[int, int]) -> np.ndarray:
    """Where each pixel of a map of ``(H, W)`` is: x and y, shape (H, W, 2)."""
    return np.moveaxis(np.indices(size, float)[::-1], 0, -1)


def _judge(found: _Compared, channels: int) -> Tuple[np.ndarray, int]:
    """Shifts (M, 2) of the maps that count, and how many are of different places."""
    if not found.finite.any():
        raise UserError(
            '--maps: there is nothing to measure: no map and its counterpart of the '
            f'mirrored image are finite, of {len(found.finite)}'
        )
    clear = found.clear.copy()
    if clear.any():
        clear &= found.height >= LOW * np.percentile(found.height[clear], 90)
    known = clear & np.isfinite(found.shift).all(-1)
    if channels == 3 and 2 * known.sum() < clear.sum():
        raise UserError(
            f'--maps: of {clear.sum()} clear peaks {known.sum()} have offsets that '
            'point to them; are these maps of the offset codec, H, X and Y of each '
            'keypoint one after the other?'
        )
    if not known.any():
        raise UserError(
            '--maps: no map has a clear peak in the image and in its mirror image, of '
            f'{found.finite.sum()} finite ones: one place that stands out, not at the '
            'border'
        )
    shifts = found.shift[known]
    near = (np.abs(shifts) <= REACH_SIGMA * found.sigma[known, None]).all(-1)
    apart = int((~near).sum())
    if apart >= near.sum():
        raise UserError(
            f'--maps: {apart} of {known.sum()} clear peaks are at other places in the '
            'mirrored image; mirrored must be as the network gave it, not flipped '
            'back, and flip_indices those of its keypoints'
        )
    return shifts[near], apart


def _maximum(heat: np.ndarray, center: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Where maps under a Gaussian blur are highest.

    With weights ``w(p) = exp(-|p - c|^2 / (2 b^2))``, the blurred map at c is ``f(c) =
    sum(w(p) h(p))``, up to a factor. Let m and V be the mean and covariance of the
    pixels p weighted by ``w(p) h(p)``; then, exactly::

        grad log f = (m - c) / b^2,    Hessian = V / b^4 - 1 / b^2

    so that Newton's step from c is ``(1 - V / b^2)^-1 (m - c)``.

    Args:
        heat: Shape (M, H, W).
        center: Where the search begins, shape (M, 2), heatmap px.
        window: The blur's sigma ``b``, shape (M), heatmap px.

    Returns:
        Shape (M, 2), heatmap px; NaN where a step finds no maximum.
    """
    found = np.ones(len(heat), dtype=bool)
    for _ in range(STEPS):
        basis = []
        for axis, pixels in enumerate(heat.shape[:0:-1]):
            x = np.arange(pixels) - center[:, axis, None]
            weights = np.exp(-(x**2) / (2 * window[:, None] ** 2))
            basis.append(weights[..., None] * np.stack((x**0, x, x**2), -1))
        # sum(w h x^i y^j), shape (M, j, i).
        moments = basis[1].transpose(0, 2, 1) @ (heat @ basis[0])
        total = moments[:, 0, 0]
        found &= total > 0
        moments = moments / np.where(found, total, 1.0)[:, None, None]
        dx, dy = moments[:, 0, 1], moments[:, 1, 0]
        scale = window**2
        a = 1 - (moments[:, 0, 2] - dx**2) / scale
        b = 1 - (moments[:, 2, 0] - dy**2) / scale
        c = -(moments[:, 1, 1] - dx * dy) / scale
        det = a * b - c**2
        # It curves down on all sides.
        found &= (det > 0) & (a > 0)
        step = np.stack((b * dx - c * dy, a * dy - c * dx), -1)
        step = step / np.where(found, det, 1.0)[:, None]
        center = center + np.where(found[:, None], step, 0.0)
    return np.where(found[:, None], center, np.nan)


def _pointed_to(offsets: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where offset maps point to (Eq. 25, 26), whatever their radius.

    By Eq. 25, ``X(x, y) = (m - x) / R`` falls by ``1 / R`` a pixel, and Y likewise: the
    radius is measured by a regression over the pixels of the disc, those where H is
    at least half as high as its peak. All of them vote alike: the place is ``mean(p)
    + R mean(offset(p))``, where X and Y are zero by the regression. No value of H
    enters, nor how the pixels lie to the place, so that it is exact on perfect maps.

    Args:
        offsets: X and Y, shape (M, 2, H, W).
        high: The pixels of the disc, shape (M, H, W), boolean.

    Returns:
        Shape (M, 2), heatmap px; NaN where offsets do not fall as those of a disc of
        so many pixels do.
    """
    count = np.maximum(high.sum((1, 2)), 1)[:, None]
    places, inside = _pixels(high.shape[1:]), high[..., None]
    mean = np.tensordot(high.astype(float), places, 2) / count
    away = (places - mean[:, None, None]) * inside
    offsets = np.where(inside, np.moveaxis(offsets, 1, -1), 0.0)
    # 1 / R, if all is well.
    variance = np.maximum((away**2).sum((1, 2, 3)), 1e-9)
    slope = -(offsets * away).sum((1, 2, 3)) / variance
    relative = slope * np.sqrt(count[:, 0] / math.pi)
    found = (relative > 1 / SLOPE_FACTOR) & (relative < SLOPE_FACTOR)
    radius = 1 / np.where(found, slope, np.nan)[:, None]
    return mean + radius * offsets.sum((1, 2)) / count
