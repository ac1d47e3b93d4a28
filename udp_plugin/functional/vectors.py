"""Vectors of bins along x and y, as SimCC, RTMPose and RTMW make them: targets, flips
and readings.

A vector has ``r`` bins (the split ratio) for each px of the network's input. The
*biased* bins of the toolbox lie at ``b = r i``, so that reversing a vector does not
mirror it; bins of *unit length* lie at ``b = i (W - 1) / (pw - 1)``, so that it does.
Coordinates are in bins, counted from the first one's centre. Arrays give arrays and
tensors give tensors on their device.
"""

import math
from functools import lru_cache
from typing import Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from . import kernels
from .blurring import finite, full_precision
from .checks import check_positive
from .constants import FLAT
from .geometry import Array, constant, library_of, unit_length

#: So often the window of a reading is moved to where its step led.
ROUNDS = 3
#: A reading's blur reaches so many sigma.
REACH = 3


def vector_length(pixels: int, split_ratio: float) -> int:
    """Bins of a vector along an axis of so many input px, as the toolbox rounds it.

    Example:
        >>> vector_length(192, 2)
        384
    """
    return int(np.around(pixels * split_ratio))


def vector_misalignment(pixels: int, split_ratio: float) -> float:
    """Where biased vectors of a mirrored input, reversed, lie from direct ones, bins.

    The image mirrors ``b`` to ``r (pw - 1) - b``, the vector to ``W - 1 - b``: with
    ``W = r pw`` they are ``r - 1`` bins apart. With bins of unit length it is 0.

    Example:
        >>> vector_misalignment(192, 2)
        1.0
    """
    size = vector_length(pixels, split_ratio), pixels
    bins, length = unit_length(size)
    return float(bins - split_ratio * length)


def gaussian_vector(
    places: Array, visible: Array, length: int, sigma: float
) -> Tuple[Array, Array]:
    """A Gaussian along an axis for each keypoint, 1 at its exact place.

    Args:
        places: Shape (..., K), bins.
        visible: Shape (..., K); what is below 0.5 is not drawn.
        length: ``W``, bins.
        sigma: Of the Gaussian, bins.

    Returns:
        tuple: vectors (..., K, W), float32, and which keypoints are finite and within
        three sigma of the vector, (..., K).

    Raises:
        ValueError: ``sigma`` is not positive.

    Example:
        >>> gaussian_vector(np.array([1.0]), np.ones(1), 4, 1)[0].round(2)
        array([[0.61, 1.  , 0.61, 0.14]], dtype=float32)
    """
    check_positive(sigma, 'sigma')
    xp = library_of(places)
    known = xp.isfinite(places)
    places = xp.where(known, places, constant(0.0, places))
    (last,) = unit_length((length,))
    near = known & (places >= -3 * sigma) & (places <= last + 3 * sigma)
    bins = constant(np.arange(length), places)
    away = (bins - places[..., None]) / (math.sqrt(2) * sigma)
    # Single precision is quicker by half, and as exact as what is kept of it.
    away = away.float() if xp is torch else away.astype(np.float32)
    vectors = xp.exp(-away * away)
    drawn = near & (visible >= 0.5)
    return vectors * drawn[..., None], near


def split_vector(
    places: Array, visible: Array, length: int, smoothing: float = 0.0
) -> Tuple[Array, Array]:
    """One bin for each keypoint, or the two beside its exact place by their nearness.

    Their mean is the place. ``smoothing`` of it is spread evenly over the other bins.

    Args and returns are those of :func:`gaussian_vector`; what counts are keypoints
    within half a bin of the vector.

    Example:
        >>> split_vector(np.array([1.25]), np.ones(1), 4)[0]
        array([[0.  , 0.75, 0.25, 0.  ]], dtype=float32)
    """
    xp = library_of(places)
    known = xp.isfinite(places)
    places = xp.where(known, places, constant(0.0, places))
    (last,) = unit_length((length,))
    near = known & (places >= -0.5) & (places < last + 0.5)
    bins = constant(np.arange(length), places)
    # Tensors and arrays both have it.
    share = (1 - abs(bins - places.clip(0, last)[..., None])).clip(0)
    others = smoothing / last
    vectors = others + share * (1 - smoothing - others)
    vectors = vectors * (near & (visible >= 0.5))[..., None]
    return (vectors.float() if xp is torch else vectors.astype(np.float32)), near


def decode_vectors(vectors: Tensor, sigma: float) -> Tuple[Tensor, Tensor]:
    """Read vectors at parts of a bin: the maximum of the blurred vector.

    From the argmax, Newton's steps lead to where the blurred vector is highest. That is
    exact for what is symmetric about the keypoint: a Gaussian, or the parabola of its
    logarithm, which networks learn up to a constant. No step leads farther than
    ``sigma``.

    Args:
        vectors: Shape (..., W); a bin that is not finite counts as the lowest.
        sigma: Of the blur, bins: that of the targets.

    Returns:
        tuple: places (...) in bins, finite and on the vector, and the maxima (...). A
        flat vector has its middle bin and the score 0.

    Raises:
        ValueError: ``sigma`` is not positive.

    Example:
        >>> x = torch.exp(-(torch.arange(40) - 20.3) ** 2 / 32)
        >>> decode_vectors(x, sigma=4)[0].round(decimals=3)
        tensor(20.3000)
    """
    check_positive(sigma, 'sigma')
    shape, length = vectors.shape[:-1], vectors.shape[-1]
    if kernels.fit(vectors):
        stencils = _stencils(length, float(sigma))
        return kernels.decode_vectors(vectors, stencils, float(sigma), ROUNDS)
    return _read(vectors.reshape(-1, length), sigma, shape)


@full_precision
def _read(flat: Tensor, sigma: float, shape: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """:func:`decode_vectors` of vectors (N, W): the definition."""
    length = flat.shape[-1]
    (last,) = unit_length((length,))
    known = flat.isfinite()
    flat = finite(flat)
    lowest = flat.amin(-1, keepdim=True)
    flat = torch.where(known, flat, lowest)
    score, peak = flat.max(-1)
    found = score - lowest[:, 0] > FLAT * score.abs()
    peak = torch.where(found, peak, length // 2)
    stencils = constant(_stencils(length, float(sigma)), flat)
    size = stencils.shape[-1]
    steps = torch.arange(size, device=flat.device)
    start = place = peak.to(flat.dtype)
    for _ in range(ROUNDS):
        pixel = place.round().long().clamp(0, last)
        first = (pixel - size // 2).clamp(0, length - size)
        # Relative to the highest, since sums of a constant would cancel.
        window = flat.gather(1, first[:, None] + steps) - score[:, None]
        g1, g2, g3, g4 = (stencils[pixel] * window[:, None]).sum(-1).unbind(-1)
        step = _highest_near(g1, g2, g3, g4)
        # At the ends, the window is about the bin beside the last.
        moved = pixel.clamp(1, last - 1) + step
        moved = torch.minimum(torch.maximum(moved, start - sigma), start + sigma)
        place = torch.where(g2 < 0, moved, place).clamp(0, last)
    place = torch.where(found, place, start)
    return place.reshape(shape), (score * found).reshape(shape)


def _highest_near(g1: Tensor, g2: Tensor, g3: Tensor, g4: Tensor) -> Tensor:
    """Where a function is highest, by its derivatives at 0; at most a bin away."""
    # Where it curves upwards nothing is done with the answer.
    curved = torch.where(g2 < 0, g2, torch.full_like(g2, -1.0))
    step = (-g1 / curved).clamp(-1, 1)
    for _ in range(2):
        slope = g1 + step * (curved + step * (g3 / 2 + step * g4 / 6))
        curvature = curved + step * (g3 + step * g4 / 2)
        newton = step - slope / torch.where(curvature < 0, curvature, curved)
        step = newton.clamp(-1, 1)
    return step


@lru_cache(maxsize=64)
def _stencils(length: int, sigma: float) -> np.ndarray:
    """By bin, the weights of a blurred vector's first four derivatives there.

    The blur is about a Gaussian, and ends smoothly at R, three sigma:
    ``(1 - (x / R)^2)^5``. At the ends of the vector it shrinks to the bins that there
    are on both sides.

    Returns:
        Shape (length, 4, P): of the P bins around, moved onto the vector.
    """
    full = max(REACH * sigma, 2.0)
    (last,) = unit_length((length,))
    size = min(2 * math.floor(full) + 1, length)
    blur = np.polynomial.Polynomial([1, 0, -1]) ** 5
    stencils = np.zeros((length, 4, size))
    for bin_ in range(length):
        center = min(max(bin_, 1), last - 1)
        reach = min(center + 1.0, last - center + 1.0, full, (size + 1) / 2)
        bins = math.ceil(reach) - 1
        x = np.arange(-bins, bins + 1) / reach
        first = min(max(bin_ - size // 2, 0), length - size)
        start = center - bins - first
        for order in range(1, 5):
            # The blur moves with t, so that each derivative has the other sign.
            derivative = blur.deriv(order)(x) * (-1 / reach) ** order
            stencils[bin_, order - 1, start : start + 2 * bins + 1] = derivative
    return stencils
