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
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from udp_plugin import functional as F
from udp_plugin.ui import Table, UserError

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

#: Strides that networks have, if the input's size is not known.
STRIDES = (2, 4, 8)
#: Fewer maps than these say nothing about a mean of rounded places.
FEW = 20
#: A mean that is farther from theory than this is not explained by it, heatmap px.
TOLERANCE = 0.1

#: What may be done with the mirrored maps: by key, its name, and what it makes of a
#: distance (x, y): ``factor * (distance + shift)``.
VARIANTS = {
    'alone': ('mirrored alone', 1.0, (0.0, 0.0)),
    'shifted': ('mirrored, shifted', 1.0, (1.0, 0.0)),
    'averaged': ('averaged', 0.5, (0.0, 0.0)),
    'averaged_shifted': ('averaged, shifted', 0.5, (1.0, 0.0)),
}


class MapsAlignment(NamedTuple):
    """How far flipped-back mirrored maps lie from direct ones.

    Attributes:
        shifts: Shape (M, 2), x and y in heatmap px, of the maps that counted: how
            much farther to the right (and lower) than in the direct map the peak is
            in the mirrored one. The sign is that of
            :func:`~udp_plugin.functional.flip_misalignment`.
        maps_given: ``N * K``.
        maps_apart: How many had a clear peak in both maps, but at different places.
        heatmap_size: ``(W, H)`` in pixels.
        flip_indices: For each keypoint its counterpart's index.
        inferred: Whether ``flip_indices`` were inferred from the maps.
    """

    shifts: np.ndarray
    maps_given: int
    maps_apart: int
    heatmap_size: Tuple[int, int]
    flip_indices: Tuple[int, ...]
    inferred: bool

    @property
    def maps_counted(self) -> int:
        """How many maps the shifts are of."""
        return len(self.shifts)


class Verdict(NamedTuple):
    """What the mean distance on the x axis says of the measure.

    Attributes:
        kind: ``'unbiased'``, ``'biased'``, ``'biased_shifted'``,
            ``'unbiased_shifted'``, ``'other'`` (theory explains none such) or
            ``'undecided'`` (too few maps to tell).
        theory: The nearest value of theory, heatmap px.
        equation: The equation that it is from.
        text: What that means and what to do, in a sentence or two.
    """

    kind: str
    theory: float
    equation: str
    text: str

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return dict(
            kind=self.kind,
            theory_heatmap_px=self.theory,
            equation=self.equation,
            text=self.text,
        )


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
    path = Path(path)
    try:
        # A file of gigabytes is read piece by piece.
        content = np.load(path, mmap_mode='r', allow_pickle=False)
        if isinstance(content, np.ndarray):
            maps, mirrored = _halves(content, path)
        else:
            with content:
                missing = [n for n in ('maps', 'mirrored') if n not in content.files]
                if missing:
                    raise UserError(
                        f'--maps {path}: a .npz file needs the arrays maps and '
                        f'mirrored, got {", ".join(content.files) or "none"}'
                    )
                maps, mirrored = content['maps'], content['mirrored']
    except OSError as error:
        raise UserError(
            f'--maps {path}: cannot be read: {error.strerror or error}'
        ) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f'--maps {path}: expected numbers in a .npy file of shape (2, N, C, H, W) '
            'or in a .npz file with the arrays maps and mirrored, got a file that '
            'NumPy does not read as such (pickled objects are not read)'
        ) from error
    try:
        _check(maps, mirrored, channels)
    except UserError as error:
        raise UserError(str(error).replace('--maps', f'--maps {path}', 1)) from error
    return maps, mirrored


def _halves(content: np.ndarray, path: Path) -> Tuple[np.ndarray, np.ndarray]:
    if content.ndim != 5 or len(content) != 2:
        raise UserError(
            f'--maps {path}: expected an array of shape (2, N, C, H, W), maps of the '
            f'images and of the mirrored images, got shape {content.shape}'
        )
    return content[0], content[1]


def measure_maps(
    maps: np.ndarray,
    mirrored: np.ndarray,
    channels: int = 1,
    flip_indices: Optional[Sequence[int]] = None,
) -> MapsAlignment:
    """Measure how far flipped-back mirrored maps lie from direct ones.

    A map counts if it and its counterpart are finite and have a *clear peak*. Heights
    are above the map's median, and sigma is that of the Gaussian with as many pixels
    at least half as high as the peak (of a disc of radius R, ``0.85 R``). The peak is
    clear if these pixels lie together, none farther than three sigma from their mean
    on an axis; if that mean is at least 2.5 pixels and 1.5 sigma away from the map's
    border; and if it is at least a fifth as high as the higher peaks are (the 90th
    percentile). Peaks more than three sigma apart count as different places.

    Where a peak is, is the maximum of the map under a Gaussian blur about as wide as
    the peak, found by Newton's steps on the logarithm (:func:`_maximum`). The blur
    averages noise, and two maps of one shape, whatever it is, are found as far apart
    as they are. With the offset codec that is asked of the classification map H only
    to say whether a peak is clear; where it is, is what the half-high pixels point to
    (:func:`_pointed_to`).

    Args:
        maps: The network's output for the images, shape (N, C, H, W).
        mirrored: Its output for the mirrored images, as it came, the same shape.
        channels: Maps a keypoint: 1, or 3 (H, X, Y) with the offset codec.
        flip_indices: For each of the K keypoints its counterpart's index; inferred if
            not given.

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
    keypoints = maps.shape[1] // channels
    inferred = flip_indices is None
    if flip_indices is None:
        indices = infer_flip_indices(maps, mirrored, channels)
    else:
        indices = _checked(flip_indices, keypoints)
    parts = []
    for direct, other in _pieces(maps, mirrored):
        back = F.flip_maps(torch.from_numpy(other), indices, channels).numpy()
        shape = (-1, channels, *maps.shape[2:])
        # Numbers too large to be computed with make no clear peak.
        with np.errstate(over='ignore', invalid='ignore'):
            parts.append(_compare(direct.reshape(shape), back.reshape(shape)))
    found = _Compared(*(np.concatenate(each) for each in zip(*parts)))
    shifts, apart = _judge(found, channels)
    height, width = maps.shape[2:]
    return MapsAlignment(
        shifts, len(found.finite), apart, (width, height), tuple(indices), inferred
    )


def _check(maps: np.ndarray, mirrored: np.ndarray, channels: int) -> None:
    """Refuse what are no maps of images and of mirrored images."""
    if channels not in (1, 3):
        raise UserError(f'channels must be 1 or 3, got {channels!r}')
    for name, array in (('maps', maps), ('mirrored', mirrored)):
        if array.ndim != 4:
            raise UserError(
                f'--maps: {name} must be of shape (N, C, H, W), got shape {array.shape}'
            )
        if array.dtype.kind not in 'fiu':
            raise UserError(
                f'--maps: {name} must be real numbers, got dtype {array.dtype}'
            )
    if maps.shape != mirrored.shape:
        raise UserError(
            '--maps: maps and mirrored must be of the same shape, got '
            f'{maps.shape} and {mirrored.shape}'
        )
    if 0 in maps.shape:
        raise UserError(f'--maps: no maps in arrays of shape {maps.shape}')
    if min(maps.shape[2:]) < 2:
        raise UserError(
            '--maps: maps must be of at least 2 pixels an axis, got shape '
            f'(N, C, H, W) = {maps.shape}'
        )
    if maps.shape[1] % channels:
        raise UserError(
            f'--maps: the offset codec has {channels} channels a keypoint (H, X, Y), '
            f'got {maps.shape[1]} channels, which are no multiple of {channels}'
        )


def _checked(flip_indices: Sequence[int], keypoints: int) -> List[int]:
    """``flip_indices`` if they pair the keypoints."""
    indices = [int(index) for index in flip_indices]
    if sorted(indices) != list(range(keypoints)) or not _pairs(indices):
        raise UserError(
            f'flip_indices must name for each of {keypoints} keypoints its counterpart '
            f'(from 0 on), whose counterpart it is in turn, got {indices}'
        )
    return indices


def _pairs(indices: Sequence[int]) -> bool:
    """Whether every counterpart's counterpart is the keypoint itself."""
    return all(indices[index] == k for k, index in enumerate(indices))


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
    flat = maps.reshape(*maps.shape[:2], -1)
    flat, _ = _scaled(flat)
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
    maps = maps / np.where(largest > 0, largest, 1.0)
    return maps, np.where(finite, largest, np.nan)


class _Compared(NamedTuple):
    """Of maps (M) and their counterparts, what decides whether they count.

    Attributes:
        finite: Whether both are.
        clear: Whether both have a clear peak, whose height aside.
        height: Of the lower peak.
        direct, back: Where the peaks are, shape (M, 2), heatmap px; NaN if unknown.
        sigma: Of the peaks, the mean of both, heatmap px.
    """

    finite: np.ndarray
    clear: np.ndarray
    height: np.ndarray
    direct: np.ndarray
    back: np.ndarray
    sigma: np.ndarray


class _Peaks(NamedTuple):
    """The peaks of maps (M, H, W).

    Attributes:
        heat: The maps above their median, scaled to at most about 1; shape (M, H, W).
        high: Which pixels are at least half as high as the peak; shape (M, H, W).
        height: Of the peaks, in the maps' own numbers; NaN of maps that are not
            finite.
        center: The mean of the half-high pixels, shape (M, 2).
        sigma: Of the Gaussian with as many half-high pixels, heatmap px.
        margin: The peak's distance from the nearest border, heatmap px.
        clear: Whether there is a peak, in one place, away from the border.
    """

    heat: np.ndarray
    high: np.ndarray
    height: np.ndarray
    center: np.ndarray
    sigma: np.ndarray
    margin: np.ndarray
    clear: np.ndarray


def _peaks(maps: np.ndarray) -> _Peaks:
    shape = maps.shape
    heat, largest = _scaled(maps.reshape(len(maps), -1))
    heat -= np.median(heat, axis=-1, keepdims=True)
    top = heat.max(-1, keepdims=True)
    high = ((heat >= 0.5 * top) & (top > 0)).reshape(shape)
    count = np.maximum(high.sum((1, 2)), 1)
    sigma = np.sqrt(count / HALF_AREA)
    centers, margins, reaches = [], [], []
    for profile in (high.sum(1), high.sum(2)):
        (last,) = F.unit_length(profile.shape[1:])
        pixels = np.arange(profile.shape[1])
        center = profile @ pixels / count
        away = np.where(profile > 0, np.abs(pixels - center[:, None]), 0.0)
        centers.append(center)
        margins.append(np.minimum(center, last - center))
        reaches.append(away.max(1))
    margin = np.minimum(*margins)
    height = (top * largest)[:, 0]
    clear = (
        (height > 0)
        & (np.maximum(*reaches) <= REACH_SIGMA * sigma)
        & (margin >= np.maximum(BORDER_PIXELS, BORDER_SIGMA * sigma))
    )
    center = np.stack(centers, -1)
    return _Peaks(heat.reshape(shape), high, height, center, sigma, margin, clear)


def _compare(direct: np.ndarray, back: np.ndarray) -> _Compared:
    """Compare maps (M, channels, H, W) with their flipped-back counterparts."""
    one, two = _peaks(direct[:, 0]), _peaks(back[:, 0])
    sigma = (one.sigma + two.sigma) / 2
    finite = np.isfinite(direct).all((1, 2, 3)) & np.isfinite(back).all((1, 2, 3))
    clear = finite & one.clear & two.clear
    places = np.full((2, len(direct), 2), np.nan)
    # In both maps the same blur, for the border of the nearer one.
    window = np.minimum(sigma, np.minimum(one.margin, two.margin) / WINDOW_REACH)
    window = np.maximum(window, WINDOW_LEAST)[clear]
    for place, maps, peaks in zip(places, (direct, back), (one, two)):
        if direct.shape[1] == 3:
            place[clear] = _pointed_to(maps[clear, 1:], peaks.high[clear])
        else:
            place[clear] = _maximum(peaks.heat[clear], peaks.center[clear], window)
    height = np.minimum(one.height, two.height)
    return _Compared(finite, clear, height, *places, sigma)


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
    shifts = found.back - found.direct
    known = clear & np.isfinite(shifts).all(-1)
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
    near = np.zeros_like(known)
    reach = REACH_SIGMA * found.sigma[known, None]
    near[known] = (np.abs(shifts[known]) <= reach).all(-1)
    apart = int((known & ~near).sum())
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
        for axis, pixels in ((0, heat.shape[2]), (1, heat.shape[1])):
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
    disc = high.astype(np.float64)
    count = np.maximum(disc.sum((1, 2)), 1)
    means, mean_offsets = [], []
    covariance = variance = 0.0
    for axis in range(2):
        pixels = np.arange(high.shape[2 - axis])
        profile = disc.sum(1 + axis)
        mean = profile @ pixels / count
        away = pixels - mean[:, None]
        offset = np.where(high, offsets[:, axis], 0.0).sum(1 + axis)
        variance = variance + (profile * away**2).sum(1)
        covariance = covariance + (offset * away).sum(1)
        means.append(mean)
        mean_offsets.append(offset.sum(1) / count)
    # 1 / R, if all is well.
    slope = -covariance / np.maximum(variance, 1e-9)
    relative = slope * np.sqrt(count / math.pi)
    found = (relative > 1 / SLOPE_FACTOR) & (relative < SLOPE_FACTOR)
    radius = 1 / np.where(found, slope, np.nan)[:, None]
    return np.stack(means, -1) + radius * np.stack(mean_offsets, -1)


def statistics(distances: np.ndarray) -> Dict[str, Dict[str, float]]:
    """By axis, what is said of distances (M, 2).

    The signed mean, which rounded places leave as theory has it although each single
    distance is of whole pixels, and mean, median, 95th percentile and maximum of the
    absolute values.
    """
    found = {}
    for axis, values in zip('xy', distances.T):
        size = np.abs(values)
        found[axis] = dict(
            signed_mean=float(values.mean()),
            mean=float(size.mean()),
            median=float(np.median(size)),
            p95=float(np.percentile(size, 95)),
            max=float(size.max()),
        )
    return found


def _variants(
    alignment: MapsAlignment, pixel: Sequence[float] = (1.0, 1.0)
) -> Dict[str, Dict[str, Dict[str, float]]]:
    """Statistics by what is done with the mirrored maps.

    Args:
        alignment: What was measured.
        pixel: A heatmap pixel's width and height in the wanted px.
    """
    return {
        name: statistics(factor * (alignment.shifts + shift) * pixel)
        for name, (_, factor, shift) in VARIANTS.items()
    }


class _Theory(NamedTuple):
    """A value that the mean distance may have."""

    kind: str
    value: float
    stride: Optional[float] = None


_EQUATIONS = dict(
    unbiased='Eq. 46',
    biased='Eq. 36',
    biased_shifted='Eq. 39',
    unbiased_shifted='Eq. 46, shifted',
)


def _theories(
    alignment: MapsAlignment, input_size: Optional[Sequence[int]]
) -> List[_Theory]:
    """What the paper has for this input, or for usual strides if it is not known."""
    width = alignment.heatmap_size[0]
    if input_size is None:
        inputs = [stride * width for stride in STRIDES]
    else:
        inputs = [input_size[0]]
    found = []
    for shifted in (False, True):
        suffix = '_shifted' if shifted else ''
        found.append(
            _Theory(f'unbiased{suffix}', F.flip_misalignment(1, 1, True, shifted))
        )
        for pixels in inputs:
            value = F.flip_misalignment(pixels, width, False, shifted)
            found.append(_Theory(f'biased{suffix}', value, pixels / width))
    return found


def verdict(
    alignment: MapsAlignment, input_size: Optional[Sequence[int]] = None
) -> Verdict:
    """Say which value of theory the mean distance on the x axis is nearest to.

    Args:
        alignment: What was measured.
        input_size: The network input ``(pw_i, ph_i)`` in pixels; usual strides are
            tried if it is not given.
    """
    mean, error = _mean(alignment.shifts[:, 0])
    theories = _theories(alignment, input_size)
    nearest = min(theories, key=lambda theory: abs(mean - theory.value))
    distance = abs(mean - nearest.value)
    # Other strides of the same kind would lead to the same advice; and at stride 1
    # the two measures do not differ.
    second = min(
        abs(mean - theory.value)
        for theory in theories
        if theory.kind != nearest.kind and theory.value != nearest.value
    )
    measured = f'On average {_signed(mean)} heatmap px on the x axis'
    equation = _EQUATIONS[nearest.kind]
    expected = f'{_signed(nearest.value)}, {equation}'
    few = alignment.maps_counted < FEW
    if not few and distance > max(TOLERANCE, 3 * error):
        kind = 'other'
        text = (
            f'{measured}, which no measure explains (nearest: {expected}): see that '
            'mirrored is the output for the mirrored input itself, not shifted or '
            'resized.'
        )
    elif few or second - distance < 4 * error:
        kind = 'undecided'
        text = (
            f'{measured} (standard error {error:.3f}), nearest to {expected}, but '
            f'{alignment.maps_counted} maps are too few to tell: give more images.'
        )
    else:
        kind = nearest.kind
        text = f'{measured}: {_advice(nearest, input_size is None)}'
    vertical, error = _mean(alignment.shifts[:, 1])
    if abs(vertical) > max(TOLERANCE, 3 * error):
        text += (
            f' On the y axis mirroring should change nothing, but they are '
            f'{_signed(vertical)} heatmap px apart.'
        )
    return Verdict(kind, nearest.value, equation, text)


def _signed(value: float) -> str:
    """As -0.750, and 0.000 without a sign."""
    rounded = round(value, 3)
    return f'{rounded:+.3f}' if rounded else '0.000'


def _mean(values: np.ndarray) -> Tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def _advice(theory: _Theory, assumed: bool) -> str:
    """What a value of theory means, and what to do."""
    if theory.kind == 'unbiased':
        return (
            'unbiased (Eq. 46: 0). Average the maps as they are; a shift by one pixel '
            'would put them a heatmap pixel apart.'
        )
    if theory.kind == 'unbiased_shifted':
        return (
            'as unbiased maps (Eq. 46: 0) after a shift by one pixel. Switch the shift '
            'off.'
        )
    s = theory.stride or 1.0
    value = f'{_signed(theory.value)}, {"probably " if assumed else ""}stride {s:g}'
    if theory.kind == 'biased':
        return (
            f'measured in pixels (Eq. 36: {value}). A shift by one pixel leaves '
            f'{1 / s:.3f}; measure by unit lengths (UDP) instead.'
        )
    return (
        f'measured in pixels and already shifted by one pixel (Eq. 39: {value}), or in '
        'cells, with a keypoint in the middle of its own (Megvii). Do not shift again; '
        'measure by unit lengths (UDP) instead.'
    )


def _pixel(
    alignment: MapsAlignment, kind: str, input_size: Sequence[int]
) -> Tuple[float, float]:
    """Input px per heatmap px, by the measure that the maps have, or by Eq. 43."""
    unbiased = not kind.startswith('biased')
    x, y = F.stride(input_size, alignment.heatmap_size, unbiased)
    return float(x), float(y)


def as_dict(
    alignment: MapsAlignment, input_size: Optional[Sequence[int]] = None
) -> Dict[str, Any]:
    """What was measured, for JSON.

    Args:
        alignment: What was measured.
        input_size: The network input ``(pw_i, ph_i)`` in pixels.

    Returns:
        dict:

        - flip_alignment_heatmap_px: By variant (``alone``, ``shifted``, ``averaged``,
          ``averaged_shifted``) and axis, see :func:`statistics`.
        - flip_alignment_px: The same in input px, if ``input_size`` is given.
        - flip_indices, flip_indices_inferred, heatmap_size, maps_given, maps_counted,
          maps_apart: See :class:`MapsAlignment`.
        - verdict: See :class:`Verdict`.
    """
    said = verdict(alignment, input_size)
    found: Dict[str, Any] = dict(flip_alignment_heatmap_px=_variants(alignment))
    if input_size is not None:
        pixel = _pixel(alignment, said.kind, input_size)
        found['flip_alignment_px'] = _variants(alignment, pixel)
    found.update(
        flip_indices=list(alignment.flip_indices),
        flip_indices_inferred=alignment.inferred,
        heatmap_size=list(alignment.heatmap_size),
        maps_given=alignment.maps_given,
        maps_counted=alignment.maps_counted,
        maps_apart=alignment.maps_apart,
        verdict=said.as_dict(),
    )
    return found


def tables(
    alignment: MapsAlignment, input_size: Optional[Sequence[int]] = None
) -> List[Table]:
    """What was measured, for reading.

    Args:
        alignment: What was measured.
        input_size: The network input ``(pw_i, ph_i)`` in pixels.

    Returns:
        A table in heatmap px, whose text is the verdict; one in input px, if
        ``input_size`` is given; and one of what was measured.
    """
    said = verdict(alignment, input_size)
    title = 'Mirrored maps, flipped back, from direct ones'
    found = [_table(f'{title}: heatmap px', _variants(alignment), said.text)]
    if input_size is not None:
        pixel = _pixel(alignment, said.kind, input_size)
        text = f'A heatmap pixel is {pixel[0]:.4g} × {pixel[1]:.4g} input px.'
        found.append(_table(f'{title}: input px', _variants(alignment, pixel), text))
    width, height = alignment.heatmap_size
    inferred = ', inferred' if alignment.inferred else ''
    rows = [
        ['maps counted', f'{alignment.maps_counted} of {alignment.maps_given}'],
        ['peaks at different places', f'{alignment.maps_apart}'],
        ['heatmap', f'{width}×{height}'],
        [f'flip_indices{inferred}', ', '.join(map(str, alignment.flip_indices))],
    ]
    return [*found, Table('What was measured', ['', ''], rows)]


def _table(
    title: str, variants: Dict[str, Dict[str, Dict[str, float]]], text: str
) -> Table:
    names = ('mean', 'median', 'p95', 'max')
    rows = [
        [
            f'{axis}: {VARIANTS[variant][0]}',
            _signed(axes[axis]['signed_mean']),
            *(f'{axes[axis][name]:.3f}' for name in names),
        ]
        for axis in 'xy'
        for variant, axes in variants.items()
    ]
    return Table(
        title, ['', 'signed mean', 'mean', 'median', '95 %', 'max'], rows, text
    )
