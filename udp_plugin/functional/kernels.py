"""Decoding on the CPU, fused: the answers of :mod:`.decoding`, one map after another.

:mod:`.decoding` states in plain torch what is computed here. There, each step goes over
a whole batch. Here, all steps are made of one map while the processor's cache holds it,
in functions that numba compiles when they are first needed, once a machine, since it
keeps them in its cache. Where :func:`fit` says no, the definition computes.

In compiled functions ``h`` is a map (H, W), ``bits`` the same memory as integers,
``infinite`` the bits of infinity, (x, y) a pixel. A blur reaches ``reach`` pixels to
either side, its weights are ``taps`` (see :func:`_taps`), and ``scratch`` is memory for
:func:`_blurred`. A pixel that is NaN or infinite counts as 0 in all of them.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from typing import Callable, List, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .blurring import gaussian, gaussian_kernel_sigma, longest_step, opencv_kernel
from .constants import (
    AUTHORS_KERNELS,
    FLAT,
    VOTING_ROUNDS,
    VOTING_SPREAD,
    VOTING_WINDOW,
)

#: So many taps of a blur are added at a time.
TAPS = 4
#: Pixels that are worth another thread, and how many more each map counts than it has.
#: A thread has several pieces, so that others do them while it is held up.
THREAD_PIXELS, MAP_PIXELS, PIECES = 2**20, 2**12, 4

#: By size of a float, the integers of that size and infinity's bits.
_BITS = {4: (np.int32, np.int32(0x7F8 << 20)), 8: (np.int64, np.int64(0x7FF << 52))}
_functions: List[Callable] = []


def _compiled(function: Callable) -> Callable:
    """Mark a function in whose place :func:`_available` puts a compiled one."""
    _functions.append(function)
    return function


@lru_cache(maxsize=None)
def _available() -> bool:
    """Whether numba can compile here. Imports it, which takes half a second."""
    try:
        import numba
        from numba.core.caching import FunctionCache
    except Exception:
        # Absent, or not for this NumPy or Python, which shows in several ways.
        return False
    if numba.config.DISABLE_JIT:
        return False

    class Cache(FunctionCache):
        """numba's, but what cannot be read or written costs time alone."""

        def load_overload(self, *args):
            with suppress(Exception):
                return super().load_overload(*args)

        def save_overload(self, *args):
            try:
                super().save_overload(*args)
            except Exception:
                # On a full disk, the index may be new and the code it names is old.
                with suppress(OSError):
                    os.unlink(self._cache_file._index_path)

    # Sums may be made in any order, but NaN and infinity are what they are.
    fast = {'contract', 'nsz', 'reassoc'}
    compiled = numba.njit(nogil=True, error_model='numpy', fastmath=fast)
    for function in _functions:
        dispatcher = globals()[function.__name__] = compiled(function)
        # If there is a folder that it could write to.
        with suppress(RuntimeError, OSError):
            dispatcher._cache = Cache(function)
    return True


@_compiled
def _maxima(bits, infinite, row_max, column_max):
    """The largest bits of finite floats in each row and column of a map, at least 0.

    Above zero, floats have the order of their bits. Below zero, bits are below zero;
    those of NaN and infinity are ``infinite`` or more. Integers are compared many at a
    time, floats one by one.
    """
    zero = bits.dtype.type(0)
    column_max[:] = zero
    for y in range(len(bits)):
        row, highest = bits[y], zero
        for x in range(row.size):
            highest = max(highest, row[x] if row[x] < infinite else zero)
        for x in range(column_max.size):
            pixel = row[x] if row[x] < infinite else zero
            column_max[x] = max(column_max[x], pixel)
        row_max[y] = highest


@_compiled
def _finite(pixel):
    return pixel if abs(pixel) < np.inf else 0.0


@_compiled
def _reflected(index, last):
    """An index beyond ``0 ... last`` reflected, without repeating the edge."""
    while index < 0 or index > last:
        index = -index if index < 0 else 2 * last - index
    return index


@_compiled
def _sum_shifted(source, step, taps, count, out):
    """``out[i] = sum(taps[j] * source[i + j * step])`` for ``i < count``."""
    out[:count] = 0
    for j in range(0, taps.size, TAPS):
        a, b = source[j * step :], source[(j + 1) * step :]
        c, d = source[(j + 2) * step :], source[(j + 3) * step :]
        of_a, of_b, of_c, of_d = taps[j], taps[j + 1], taps[j + 2], taps[j + 3]
        for i in range(count):
            out[i] += of_a * a[i] + of_b * b[i] + of_c * c[i] + of_d * d[i]


@_compiled
def _blurred(h, x, y, columns, rows, taps, reach_x, reach_y, scratch):
    """Blur ``rows * columns`` pixels, of which (x, y) is the first.

    The pixels from which they are made are copied to a flat window, reflected where
    they lie beyond the border. There, a pixel's neighbours are a fixed number of pixels
    away, on each axis; so a blur sums shifted copies of the whole window. Returned are
    the blurred pixels, flat, and the distance from row to row.
    """
    source, half, out = scratch[0], scratch[1], scratch[2]
    last_x, last_y = h.shape[1] - 1, h.shape[0] - 1
    first, width = x - reach_x, columns + 2 * reach_x
    # Columns of the window that are on the map.
    left, right = max(-first, 0), min(width, last_x + 1 - first)
    for i in range(rows + 2 * reach_y):
        on_map = h[_reflected(y - reach_y + i, last_y), first + left :]
        line = source[i * width : (i + 1) * width]
        on_line = line[left:]
        for j in range(right - left):
            on_line[j] = _finite(on_map[j])
        for j in range(left):
            line[j] = line[_reflected(first + j, last_x) - first]
        for j in range(right, width):
            line[j] = line[_reflected(first + j, last_x) - first]
    # What the zeros after the taps are multiplied by has to be finite.
    end, count = (rows + 2 * reach_y) * width, rows * width
    source[end : end + taps.shape[1] * width] = 0
    half[count : count + taps.shape[1]] = 0
    _sum_shifted(source, width, taps[reach_y], count, half)
    _sum_shifted(half, 1, taps[reach_x], count, out)
    return out, width


@_compiled
def _dark_step(h, x, y, taps, bound, scratch, v):
    """DARK's Newton step from the highest pixel, heatmap px; ``v`` is for 9 float64.

    On each axis it is at most ``bound`` long.
    """
    height, width = h.shape
    # At the border, the 3 x 3 pixels move inwards and the blur reaches less far.
    left, top = max(min(x - 1, width - 3), 0), max(min(y - 1, height - 3), 0)
    full = len(taps) - 1
    reach_x = min(left, width - 3 - left, full)
    reach_y = min(top, height - 3 - top, full)
    blurred, step = _blurred(h, left, top, 3, 3, taps, reach_x, reach_y, scratch)
    floor = 1e-30
    for i in range(9):
        v[i] = blurred[i // 3 * step + i % 3]
        floor = max(floor, 1e-3 * v[i])
    for i in range(9):
        v[i] = math.log(max(v[i], floor))
    dx, dy = (v[5] - v[3]) / 2, (v[7] - v[1]) / 2
    dxx, dyy = v[5] - 2 * v[4] + v[3], v[7] - 2 * v[4] + v[1]
    # Seven of the nine pixels, as in the authors' code.
    dxy = (v[8] - v[7] - v[5] + 2 * v[4] - v[3] - v[1] + v[0]) / 2
    det = dxx * dyy - dxy * dxy
    if dxx >= 0 or det <= 1e-9:
        return 0.0, 0.0
    step_x = left + 1 - x + (dxy * dy - dyy * dx) / det
    step_y = top + 1 - y + (dxy * dx - dxx * dy) / det
    return min(max(step_x, -bound), bound), min(max(step_y, -bound), bound)


@_compiled
def _flat(h, values, score):
    """Whether all pixels are positive, and as high as the highest but for rounding."""
    for y in range(len(h)):
        for x in range(h.shape[1]):
            if not 0 < h[y, x] < np.inf or score - values[y, x] > FLAT * score:
                return False
    return True


@_compiled
def _dark(maps, bits, infinite, taps, bound, keypoints, scores, start, stop):
    """:func:`~.decoding.decode_dark` of maps (N, H, W), from ``start`` to ``stop``."""
    height, width = maps.shape[1:]
    # Of bands of rows, since many pixels in a row are compared faster.
    rows = math.gcd(height, 8)
    bands = bits.reshape((len(maps), height // rows, rows * width))
    band_max, none = np.empty(height // rows, bits.dtype), np.empty(0, bits.dtype)
    # In float64, since a wide peak differs little from pixel to pixel.
    scratch, v = np.empty((3, (3 * taps.shape[1]) ** 2)), np.empty(9)
    for n in range(start, min(stop, len(maps))):
        _maxima(bands[n], infinite, band_max, none)
        band, pixel, score, step_x, step_y = band_max.argmax(), 0, 0.0, 0.0, 0.0
        while bands[n, band, pixel] != band_max[band] > 0:
            pixel += 1
        y, x = divmod(band * rows * width + pixel, width)
        if band_max[band] > 0 and not _flat(maps[n], maps[n], maps[n, y, x]):
            score = maps[n, y, x]
            step_x, step_y = _dark_step(maps[n], x, y, taps, bound, scratch, v)
        else:
            x, y = width // 2, height // 2
        keypoints[n, 0] = min(max(x + step_x, 0.0), width - 1.0)
        keypoints[n, 1] = min(max(y + step_y, 0.0), height - 1.0)
        scores[n] = score


@_compiled
def _span(bound, least):
    """The first index where ``bound`` is at least this, and how many up to the last."""
    first, last = 0, bound.size - 1
    while bound[first] < least:
        first += 1
    while bound[last] < least:
        last -= 1
    return first, last + 1 - first


@_compiled
def _best(h, left, top, columns, rows, taps, scratch):
    """The highest of some blurred pixels where ``h`` is positive: value, x and y.

    x is -1 if none is above zero. Also, whether they are flat.
    """
    reach = len(taps) - 1
    blurred, step = _blurred(h, left, top, columns, rows, taps, reach, reach, scratch)
    blurred = blurred[: rows * step].reshape(rows, step)[:, :columns]
    h = h[top : top + rows, left : left + columns]
    best, best_x, best_y = blurred.dtype.type(0), -1, -1
    for y in range(rows):
        for x in range(columns):
            if blurred[y, x] > best and 0 < h[y, x] < np.inf:
                best, best_x, best_y = blurred[y, x], left + x, top + y
    return best, best_x, best_y, _flat(h, blurred, best)


@_compiled
def _blurred_peak(h, bits, infinite, taps, lines, scratch):
    """The highest pixel of the blurred map where ``h`` is positive: value, x and y.

    No pixel of the blurred map is higher than the blurred maxima of the columns at its
    column, nor than those of the rows at its row. Where these are highest, 3 x 3 pixels
    are blurred; then all whose bounds are not below the best. x is -1 without a peak.

    Args:
        lines: Shape (2, H + W + 4 reach or more), zeros: for the maxima of rows and of
            columns, reflected at both ends, one after the other, and for their blur.
    """
    height, width = h.shape
    reach = len(taps) - 1
    maxima, bound, rows_at, columns_at = lines[0], lines[1], reach, height + 3 * reach
    in_bits = maxima.view(bits.dtype)
    _maxima(bits, infinite, in_bits[rows_at:], in_bits[columns_at : columns_at + width])
    for first, last in ((rows_at, height - 1), (columns_at, width - 1)):
        for i in range(1, reach + 1):
            maxima[first - i] = maxima[first + _reflected(i, last)]
            maxima[first + last + i] = maxima[first + last - _reflected(i, last)]
    _sum_shifted(maxima, 1, taps[reach], columns_at - reach + width, bound)
    row_bound, column_bound = bound[:height], bound[columns_at - reach :][:width]

    x, y = column_bound.argmax(), row_bound.argmax()
    left, top = max(min(x - 1, width - 3), 0), max(min(y - 1, height - 3), 0)
    best, _, _, _ = _best(h, left, top, 3, 3, taps, scratch)
    # Rounding may make less than this of as high a pixel.
    least = min(best * (1 - FLAT), column_bound[x], row_bound[y])
    left, columns = _span(column_bound, least)
    top, rows = _span(row_bound, least)
    best, x, y, flat = _best(h, left, top, columns, rows, taps, scratch)
    # What was left out is lower.
    return best, -1 if flat and columns * rows == h.size else x, y


@_compiled
def _exp(exponent):
    """exp of at most 0: its series at a 256th, squared eight times, many at a time."""
    a = max(exponent, -80.0) / 256
    power = 1 + a * (1 + a * (1 / 2 + a * (1 / 6 + a * (1 / 24 + a / 120))))
    return power**256


@_compiled
def _vote(maps, peak_x, peak_y, unit, radius, disc, votes):
    """Where the pixels around the keypoint point to, from the peak, and the score.

    In heatmap px, counted from the peak; p are the pixels of the disc with H(p) > 0::

        c = sum(w(p) * (p + R * offset(p))) / sum(w(p))
        w(p) = H(p) * exp(-|p - c|^2 / (2 sigma^2))

    Args:
        maps: H, X and Y, shape (3, H, W).
        unit: In which H is measured, so that no sum overflows.
        votes: Shape (5, pixels of the disc or more), float64, to compute in.
    """
    height, width = maps.shape[1:]
    reach = disc.size // 2
    left, right = max(-reach, -peak_x), min(reach, width - 1 - peak_x)
    top, bottom = max(-reach, -peak_y), min(reach, height - 1 - peak_y)
    heights, to_x, to_y, at_x, at_y = votes[0], votes[1], votes[2], votes[3], votes[4]
    count = 0
    for y in range(top, bottom + 1):
        for x in range(max(left, -disc[reach + y]), min(right, disc[reach + y]) + 1):
            heights[count] = maps[0, peak_y + y, peak_x + x]
            to_x[count] = maps[1, peak_y + y, peak_x + x]
            to_y[count] = maps[2, peak_y + y, peak_x + x]
            at_x[count], at_y[count] = x, y
            count += 1
    for i in range(count):
        heights[i] = max(_finite(heights[i]), 0.0) / unit
        # No offset of a disc is longer than 1.
        to_x[i] = at_x[i] + radius * min(max(_finite(to_x[i]), -1.0), 1.0)
        to_y[i] = at_y[i] + radius * min(max(_finite(to_y[i]), -1.0), 1.0)

    scale = -0.5 / (VOTING_WINDOW * radius) ** 2
    x = y = center_x = center_y = total = square = 0.0
    for _ in range(VOTING_ROUNDS):
        center_x, center_y = x, y
        total = sum_x = sum_y = square = 0.0
        for i in range(count):
            away = (at_x[i] - center_x) ** 2 + (at_y[i] - center_y) ** 2
            weight = heights[i] * _exp(scale * away)
            total += weight
            sum_x += weight * to_x[i]
            sum_y += weight * to_y[i]
            square += weight * (to_x[i] ** 2 + to_y[i] ** 2)
        total = max(total, 1e-30)
        x, y = sum_x / total, sum_y / total
    spread = max(square / total - x**2 - y**2, 0.0)
    agreement = 1 / (1 + spread / (VOTING_SPREAD * radius) ** 2)
    window_x = window_y = 0.0
    for i in range(-reach, reach + 1):
        window_x += _exp(scale * (i - center_x) ** 2) if left <= i <= right else 0.0
        window_y += _exp(scale * (i - center_y) ** 2) if top <= i <= bottom else 0.0
    mean = unit * (total / (window_x * window_y))
    return x, y, math.sqrt(mean * agreement)


@_compiled
def _offset(
    maps, bits, infinite, taps, shift_taps, radius, disc, keypoints, scores, start, stop
):
    """:func:`~.decoding.decode_offset` of maps (N, 3, H, W), ``start`` to ``stop``.

    Pixels vote if there is a ``disc``; else the peak's offsets count, blurred or, by a
    kernel of one pixel, as they are.
    """
    height, width = maps.shape[2:]
    reach, size = len(shift_taps) - 1, 2 * (taps.shape[1] + shift_taps.shape[1])
    lines = np.zeros((2, height + width + 2 * size), maps.dtype)
    scratch = np.empty((3, (height + size) * (width + size)), maps.dtype)
    votes = np.empty((5, min(disc.size, height) * min(disc.size, width)), np.float64)
    for n in range(start, min(stop, len(maps))):
        h, h_bits = maps[n, 0], bits[n, 0]
        score, x, y = _blurred_peak(h, h_bits, infinite, taps, lines, scratch)
        step_x = step_y = 0.0
        if x < 0:
            x, y, score = width // 2, height // 2, 0.0
        elif disc.size:
            step_x, step_y, score = _vote(maps[n], x, y, score, radius, disc, votes)
        else:
            for h in maps[n, 1:]:
                blur = _blurred(h, x, y, 1, 1, shift_taps, reach, reach, scratch)
                step_x, step_y = step_y, radius * blur[0][0]
        keypoints[n, 0] = min(max(x + step_x, 0.0), width - 1.0)
        keypoints[n, 1] = min(max(y + step_y, 0.0), height - 1.0)
        scores[n] = score


@_compiled
def _within(value, low, high):
    return min(max(value, low), high)


@_compiled
def _vectors(vectors, stencils, sigma, rounds, places, scores, start, stop):
    """:func:`~.vectors.decode_vectors` of (N, W), from ``start`` to ``stop``."""
    length, size = vectors.shape[1], stencils.shape[2]
    for n in range(start, stop):
        v, low, high, peak, known = vectors[n], np.inf, -np.inf, 0, 0
        for x in range(length):
            value = v[x]
            if abs(value) < np.inf:
                known += 1
                low = min(low, value)
                if value > high:
                    high, peak = value, x
        if known < length:
            # What is not finite counts as the lowest, or as 0 if that is lower.
            low = min(low, 0.0)
            high = max(high, low)
        found = high - low > FLAT * abs(high)
        begin = float(peak if found else length // 2)
        place = begin
        for _ in range(rounds if found else 0):
            pixel = int(_within(np.rint(place), 0, length - 1))
            first = min(max(pixel - size // 2, 0), length - size)
            g1 = g2 = g3 = g4 = 0.0
            weights = stencils[pixel]
            for j in range(size):
                value = v[first + j]
                value = (value if abs(value) < np.inf else low) - high
                g1 += weights[0, j] * value
                g2 += weights[1, j] * value
                g3 += weights[2, j] * value
                g4 += weights[3, j] * value
            if g2 >= 0:
                break
            step = _within(-g1 / g2, -1.0, 1.0)
            for _ in range(2):
                slope = g1 + step * (g2 + step * (g3 / 2 + step * g4 / 6))
                curvature = g2 + step * (g3 + step * g4 / 2)
                step -= slope / (curvature if curvature < 0 else g2)
                step = _within(step, -1.0, 1.0)
            moved = min(max(pixel, 1), length - 2) + step
            moved = _within(moved, begin - sigma, begin + sigma)
            place = _within(moved, 0.0, length - 1.0)
        places[n], scores[n] = place, high if found else 0.0


@lru_cache(maxsize=64)
def _taps(kernel_size: int, dtype: np.dtype) -> np.ndarray:
    """Weights of blurs that reach 0, 1, 2 ... pixels, by row, followed by zeros.

    The last is OpenCV's of this size. DARK's, at the border, are narrower with it.
    """
    full = kernel_size // 2
    sigma = gaussian_kernel_sigma(kernel_size)
    taps = np.zeros((full + 1, kernel_size + -kernel_size % TAPS), dtype)
    for reach in range(full):
        taps[reach, : 2 * reach + 1] = gaussian(reach, sigma * max(reach, 0.5) / full)
    taps[full, :kernel_size] = opencv_kernel(kernel_size)
    return taps


@lru_cache(maxsize=64)
def _disc(radius: float) -> np.ndarray:
    """The pixels that vote: how many to either side of the peak, by row; -1 is none."""
    # The keypoint is up to half a pixel an axis away from the peak.
    reach = radius + math.sqrt(0.5)
    y = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
    square = reach**2 - y**2
    return np.where(square < 0, -1, np.sqrt(np.maximum(square, 0))).astype(np.int64)


@lru_cache(maxsize=None)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Our own threads: numba's abort in forked workers, or when two threads call."""
    return ThreadPoolExecutor(threads, thread_name_prefix='udp_plugin')


if hasattr(os, 'register_at_fork'):
    # Of its parent's threads, a forked process has none.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _in_threads(work: Callable, maps: int, height: int, width: int) -> None:
    """Call ``work(start, stop)`` on all maps, in threads if there is much to do."""
    worthy = maps * (height * width + MAP_PIXELS) // THREAD_PIXELS
    threads = min(worthy, torch.get_num_threads())
    if threads < 2:
        work(0, maps)
    else:
        size = -(-maps // (threads * PIECES))
        starts, stops = range(0, maps, size), range(size, maps + size, size)
        list(_pool(torch.get_num_threads()).map(work, starts, stops))


# Torch 2.1 has it elsewhere.
_torch = torch.compiler if hasattr(torch.compiler, 'is_compiling') else torch._utils


def fit(maps: Tensor) -> bool:
    """Whether maps can be read here, with the same effects as by the definition.

    They are plain tensors on the CPU that have values, nothing follows what is done
    with them (gradients, a graph, a mode or a transform of torch), and numba is there.
    """
    if type(maps) is not Tensor or torch.jit.is_tracing() or _torch.is_compiling():
        return False
    if maps.device.type != 'cpu' or maps.layout != torch.strided or maps.is_neg():
        return False
    followed = forward_ad._current_level >= 0 or torch._C._len_torch_dispatch_stack()
    if followed or (maps.requires_grad and torch.is_grad_enabled()):
        return False
    try:
        # Refused within a transform of torch.func.
        maps.data_ptr()
    except RuntimeError:
        return False
    return _available()


def decode_dark(maps: Tensor, kernel_size: int) -> Tuple[Tensor, Tensor]:
    """Keypoints (..., 2), heatmap px, and scores (...) of maps (..., H, W) that fit."""
    pixels = _pixels(maps)
    keypoints, scores, flat = _answers(pixels, pixels.shape[:-2])
    each = pixels.reshape(-1, *pixels.shape[-2:])
    taps = _taps(kernel_size, np.dtype(np.float64))
    integers, infinite = _BITS[each.itemsize]
    arguments = each, each.view(integers), infinite, taps, longest_step(kernel_size)
    _in_threads(partial(_dark, *arguments, *flat), *each.shape)
    return keypoints, scores


def decode_offset(
    maps: Tensor, radius: float, reading: str, kernel_size: int
) -> Tuple[Tensor, Tensor]:
    """Keypoints (N, 2), heatmap px, and scores (N) of maps (N, 3, H, W) that fit."""
    pixels = _pixels(maps)
    keypoints, scores, flat = _answers(pixels, pixels.shape[:1])
    sizes = kernel_size, AUTHORS_KERNELS[1] if reading == 'authors' else 1
    taps = [_taps(size, pixels.dtype) for size in sizes]
    disc = _disc(radius) if reading == 'voting' else _disc(radius)[:0]
    integers, infinite = _BITS[pixels.itemsize]
    arguments = pixels, pixels.view(integers), infinite, *taps, float(radius), disc
    _in_threads(partial(_offset, *arguments, *flat), len(pixels), *pixels.shape[2:])
    return keypoints, scores


def decode_vectors(
    vectors: Tensor, stencils: np.ndarray, sigma: float, rounds: int
) -> Tuple[Tensor, Tensor]:
    """Places (...), bins, and scores (...) of vectors (..., W) that fit."""
    bins = _pixels(vectors)
    each = bins.reshape(-1, bins.shape[-1])
    places, scores = (np.empty(bins.shape[:-1], bins.dtype) for _ in range(2))
    answers = places.reshape(-1), scores.reshape(-1)
    work = partial(_vectors, each, stencils, sigma, rounds, *answers)
    _in_threads(work, len(each), 1, each.shape[1])
    return torch.from_numpy(places), torch.from_numpy(scores)


def _pixels(maps: Tensor) -> np.ndarray:
    """Maps as a contiguous array of float32 or float64."""
    if maps.dtype not in (torch.float32, torch.float64):
        maps = maps.float()
    return np.ascontiguousarray(maps.detach().numpy())


def _answers(pixels: np.ndarray, shape: Tuple[int, ...]) -> Tuple:
    """Keypoints and scores to be written, as tensors of this shape and flat arrays."""
    keypoints, scores = (np.empty(s, pixels.dtype) for s in ((*shape, 2), shape))
    flat = keypoints.reshape(-1, 2), scores.reshape(-1)
    return torch.from_numpy(keypoints), torch.from_numpy(scores), flat
