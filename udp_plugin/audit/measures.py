"""What an audit measures around the perfect network: coding, flip test, end to end.

All errors are in input px unless they are said to be in source px.
"""

from functools import partial
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from udp_plugin import functional as F

from .flows import Warped
from .parts import Parts
from .people import IMAGE_SIZE, Person, oks, random_people, sigmas_of
from .warps import CELLS, NEITHER, PIXELS, UNIT_LENGTH, Transform

#: Keypoints coded for each distribution, about.
POINTS = 2048
#: Standard deviation of the noise on maps, as a part of their peak.
NOISE = 0.05
#: Positions nearer to the edge than this many heatmap px are those at the border.
BORDER = 2.0
#: Farther than this from an equation (heatmap px, on the mean), a target follows none.
CODING_TOLERANCE = 0.1


class Coding(NamedTuple):
    """How keypoints become maps and are read from them; arrays are (M, 2) in input px.

    Both measures are unit length (Eq. 43, 47) or pixels (Eq. 32, 33), or of the target
    cells.
    """

    kind: str  #: How the target measures the map.
    answer: str  #: How the codec's answer does, for the estimator.
    positions: np.ndarray  #: Where keypoints were.
    errors: np.ndarray  #: Of what is read there.
    border: Tuple[np.ndarray, np.ndarray]  #: (M,), of x and of y, each at its border.
    noisy: np.ndarray  #: As errors, with noise on the maps.


class Flip(NamedTuple):
    """How far mirrored maps lie from direct ones, each of shape (M, 2).

    The first four are what the targets would give in a plain flip test, ``configured``
    what the config's head makes of them (None without a flip test): where the maps that
    it reads have the keypoint, minus where the direct ones have it. If the mirrored
    input is dithered, so that its targets are rounded in another way on purpose, it is
    minus the mean of where the two inputs have it.
    """

    alone: np.ndarray
    shifted: np.ndarray
    averaged: np.ndarray
    averaged_shifted: np.ndarray
    configured: Optional[np.ndarray]


class EndToEnd(NamedTuple):
    """From source to source, as configured; errors are (M, 2)."""

    round_trip: np.ndarray  #: Forward warp against mapping what is read back, input px.
    source_px: np.ndarray  #: Errors of all keypoints that are in the input.
    input_px: np.ndarray  #: The same in input px.
    oks: np.ndarray  #: Of each person, shape (N,).
    outside: int  #: Labelled keypoints that are not in the input.
    persons: List[Person]


# --- flip alignment -------------------------------------------------------------------


def measure_flip(parts: Parts, coding: Coding) -> Flip:
    """Code keypoints and their mirror images, and see where each map has them."""
    keypoints = _spread(parts, *_interior(parts), np.random.default_rng(0))
    (person,) = random_people(parts, 1)
    sample = parts.test.warp(person).end['data_samples']
    flip_test = bool(parts.model.test_cfg.get('flip_test'))
    flip = parts.flip_indices()
    paired = np.array([flip[flip[k]] == k for k in range(parts.num_keypoints)])
    found: Dict[str, List[np.ndarray]] = {}
    for batch in parts.batches(len(keypoints)):
        points = keypoints[batch]
        maps, mirrored = parts.encode(points), parts.encode(parts.mirror(points))
        back = F.flip_maps(mirrored, flip, parts.channels)
        shifted = back.clone()
        shifted[..., 1:] = back[..., :-1]
        variants = dict(
            alone=back,
            shifted=shifted,
            averaged=(maps + back) / 2,
            averaged_shifted=(maps + shifted) / 2,
        )
        if flip_test:
            copies = [sample.clone() for _ in points]
            dithered = parts.encode(parts.mirror(points) + parts.dither)
            _, variants['configured'] = parts.predict(maps, dithered, copies)
        direct = locate(parts, coding, maps)
        for name, variant in variants.items():
            difference = locate(parts, coding, variant) - direct
            if name == 'configured' and parts.dither.any():
                other = locate(parts, coding, dithered) - parts.dither
                difference -= (parts.mirror(other) - direct) / 2
            found.setdefault(name, []).append(difference[:, paired].reshape(-1, 2))
    arrays = {name: np.concatenate(pieces) for name, pieces in found.items()}
    return Flip(**{'configured': None, **arrays})


def locate(parts: Parts, coding: Coding, maps: Tensor) -> np.ndarray:
    """Where maps have their keypoints, shape (N, K, 2), input px.

    Of heatmaps, the centroid, whatever their codec would read; of offset maps, what it
    reads.
    """
    if parts.channels == 3:
        return _read(parts, coding.answer, maps)
    return places_of(parts, coding.kind, _centroids(maps))


def places_of(parts: Parts, kind: str, pixels: np.ndarray) -> np.ndarray:
    """The keypoints (..., 2) in input px that are at these heatmap px."""
    t = parts.stride(unbiased=kind == UNIT_LENGTH)
    return (pixels + (0.5 if kind == CELLS else 0)) * t


def pixels_of(parts: Parts, kind: str, places: np.ndarray) -> np.ndarray:
    """Where on the map, in heatmap px, keypoints (..., 2) in input px are."""
    t = parts.stride(unbiased=kind == UNIT_LENGTH)
    return places / t - (0.5 if kind == CELLS else 0)


def _read(parts: Parts, answer: str, maps: Tensor) -> np.ndarray:
    """What the codec reads, in input px."""
    read = parts.decode(maps)
    unbiased = answer == UNIT_LENGTH
    return F.toolbox_to_input(read, parts.input_size) if unbiased else read


def _centroids(maps: Tensor) -> np.ndarray:
    """Centroids (N, K, 2) of maps (N, K, H, W), heatmap px."""
    maps = maps.double()
    mass = maps.sum((-2, -1))
    x = maps.sum(-2) @ torch.arange(maps.shape[-1], dtype=maps.dtype) / mass
    y = maps.sum(-1) @ torch.arange(maps.shape[-2], dtype=maps.dtype) / mass
    return torch.stack((x, y), -1).numpy()


# --- encode-decode --------------------------------------------------------------------


def measure_coding(parts: Parts) -> Coding:
    """Code keypoints at all sub-pixel positions, and read them."""
    rng = np.random.default_rng(0)
    kind = _coding_kind(parts, rng)
    answer = _answer_kind(parts, kind, rng)
    if parts.input_size == parts.heatmap_size and NEITHER not in (kind, answer):
        # At stride 1 only the answers differ.
        kind = answer

    read = partial(_read, parts, answer)

    def read_noisy(maps: Tensor) -> np.ndarray:
        peak = float(maps[:, :: parts.channels].max())
        noise = rng.normal(0, NOISE * peak, maps.shape)
        return read(maps + torch.as_tensor(noise, dtype=maps.dtype))

    points = _spread(parts, *_interior(parts), rng)
    border = _border(parts, rng)
    across, down = (parts.read_targets(near, read) - near for near in border)
    errors = parts.read_targets(points, read) - points
    # Fewer, since the noise of each pixel matters, not the place.
    some = points[: max(len(points) // 2, 1)]
    return Coding(
        kind=kind,
        answer=answer,
        positions=points.reshape(-1, 2),
        errors=errors.reshape(-1, 2),
        border=(across[..., 0].ravel(), down[..., 1].ravel()),
        noisy=(parts.read_targets(some, read_noisy) - some).reshape(-1, 2),
    )


def _interior(parts: Parts) -> Tuple[np.ndarray, np.ndarray]:
    """Start and length of where targets are whole, input px: whole heatmap pixels."""
    pixels, s = np.asarray(parts.heatmap_size), parts.stride(unbiased=False)
    margin = np.ceil(np.minimum(4 * _sigma(parts) + 1, pixels // 3))
    return margin * s, np.maximum(pixels - 2 * margin, 1) * s


def _sigma(parts: Parts) -> float:
    """The target's, heatmap px, or something like it."""
    decoder = parts.head.decoder
    radius = getattr(decoder, 'radius', None)
    if radius is None and parts.channels == 3:
        radius = getattr(decoder, 'radius_factor', 0) * max(parts.heatmap_size)
    if radius:
        return radius / F.RADIUS_PER_SIGMA
    if getattr(decoder, 'kernel_size', None):
        # Megvii's way to give it.
        return F.gaussian_kernel_sigma(int(np.max(decoder.kernel_size)))
    return float(np.max(getattr(decoder, 'sigma', None) or 2.0))


def _spread(
    parts: Parts, start: np.ndarray, length: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Keypoints (N, K, 2), spread so evenly that all sub-pixel positions are alike."""
    count = parts.num_keypoints
    samples = max(-(-POINTS // count), 1)
    even = (np.arange(samples * count) + 0.5) / (samples * count)
    points = np.stack([rng.permutation(even) for _ in range(2)], -1)
    return (start + points * length).reshape(samples, count, 2)


def _border(parts: Parts, rng: np.random.Generator) -> List[np.ndarray]:
    """Keypoints on the border of x, and on that of y."""
    length = np.asarray(F.unit_length(parts.input_size), float)
    band = BORDER * parts.stride(unbiased=False)
    found = []
    for axis, (whole, near) in enumerate(zip(length, band)):
        points = _spread(parts, np.zeros(2), length, rng)
        points = points[: max(len(points) // 4, 1)]
        along = points[..., axis] / whole * 2 * near
        points[..., axis] = np.where(along > near, whole - (along - near), along)
        found.append(points)
    return found


def _coding_kind(parts: Parts, rng: np.random.Generator) -> str:
    """Which way of measuring the map explains where targets are.

    Targets may be rounded to pixels, so that only means over all sub-pixel positions
    tell: of each eighth of the map, or of each pixel where there are fewer.
    """
    length = np.asarray(F.unit_length(parts.input_size), float)
    points = _spread(parts, np.zeros(2), length, rng)
    located = parts.read_targets(
        points, lambda maps: _centroids(maps[:, :: parts.channels])
    ).reshape(-1, 2)
    points = points.reshape(-1, 2)
    start, length = _interior(parts)
    # Of less than a pixel, rounding would not average out.
    pieces = np.clip(np.round(length / parts.stride(unbiased=False)), 1, 8)
    piece = np.floor((points - start) / length * pieces)
    residuals = {}
    for kind in (UNIT_LENGTH, PIXELS, CELLS):
        off = located - pixels_of(parts, kind, points)
        means = []
        for axis, index in ((a, i) for a in range(2) for i in range(int(pieces[a]))):
            # Maps are cut at the border of the other axis, which moves nothing here.
            here = np.isfinite(off[:, axis]) & (piece[:, axis] == index)
            if here.any():
                means.append(off[here, axis].mean())
        residuals[kind] = np.sqrt(np.mean(np.square(means))) if means else np.inf
    best = min(residuals, key=residuals.get)
    return best if residuals[best] < CODING_TOLERANCE else NEITHER


def _answer_kind(parts: Parts, kind: str, rng: np.random.Generator) -> str:
    """How what is read measures the input, by keypoints on pixels of the map."""
    if kind == NEITHER:
        return NEITHER
    points, off = places_of(parts, kind, _pixels(parts, rng)), {}
    for which in (UNIT_LENGTH, PIXELS):
        read = parts.read_targets(points, partial(_read, parts, which))
        off[which] = np.median(np.abs(read - points))
    best = min(off, key=off.get)
    return best if off[best] < 0.25 * np.min(parts.input_size) / 64 else NEITHER


def _pixels(parts: Parts, rng: np.random.Generator) -> np.ndarray:
    """Pixels (N, K, 2) in the middle half of the map, where targets are whole."""
    size = np.asarray(parts.heatmap_size)
    edge = size // 4
    shape = (max(256 // parts.num_keypoints, 4), parts.num_keypoints, 2)
    return rng.integers(edge, size - edge, shape).astype(float)


# --- end to end -----------------------------------------------------------------------


def measure_end_to_end(
    parts: Parts,
    coding: Coding,
    seen: Transform,
    learned: Optional[Transform],
    people: Sequence[dict],
    advance: Callable[[int], None] = lambda count: None,
) -> EndToEnd:
    """Send people through the test pipeline, a perfect network, and back.

    The network sees a keypoint where the *image* has it, and answers with the target
    that training had for what is seen there.

    Args:
        parts, coding: The config's.
        seen, learned: The transforms of the test pipeline and of the training one.
        people: As a data set has them.
        advance: Is told how many people have been done.
    """
    persons: List[Person] = []
    np.random.seed(0)
    for batch in parts.batches(len(people)):
        persons += _predict_people(parts, seen, learned, people[batch])
        advance(len(persons))
    sigmas, source, pixels, outside = sigmas_of(parts), [], [], 0
    for person in persons:
        inside = inside_input(parts, person.warped.keypoints)
        outside += int((person.labelled & ~inside).sum())
        error = (person.predicted - person.annotated)[person.labelled & inside]
        source.append(error)
        pixels.append(_to_input_px(parts, person.warped, error))
    return EndToEnd(
        round_trip=_round_trip(parts, coding),
        source_px=np.concatenate(source),
        input_px=np.concatenate(pixels),
        oks=np.array([oks(person, sigmas) for person in persons]),
        outside=outside,
        persons=persons,
    )


def _to_input_px(parts: Parts, warped: Warped, errors: np.ndarray) -> np.ndarray:
    """Errors (M, 2) in source px, in px of the unrotated input."""
    return errors / warped.scale * F.unit_length(parts.input_size)


def inside_input(parts: Parts, keypoints: np.ndarray) -> np.ndarray:
    """Whether keypoints (..., 2), in input px, are in the network's input."""
    end = F.unit_length(parts.input_size)
    return ((keypoints >= 0) & (keypoints <= end)).all(-1)


def network_sees(parts: Parts, places: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The keypoints of the maps for people with keypoints (N, K, 2) here, input px.

    Of what is not in the input, a network sees the nearest; what is not labelled is in
    the middle. Maps without a peak are no part of this: of them, some codecs read NaN.
    """
    middle = np.asarray(parts.input_size) / 2
    places = np.where(labelled[..., None], places, middle)
    points = np.full((len(places), parts.num_keypoints, 2), middle)
    points[:, parts.outputs] = np.clip(places, 0, F.unit_length(parts.input_size))
    return points


def _predict_people(
    parts: Parts, seen: Transform, learned: Optional[Transform], people: Sequence[dict]
) -> List[Person]:
    areas = []
    for person in people:
        width, height = person['bbox'][0, 2:] - person['bbox'][0, :2]
        raw = person.get('raw_ann_info') or {}
        # The toolbox's stand-in for the outline's area.
        areas.append(float(raw.get('area') or 0.53 * width * height))
    warped = [parts.test.warp(dict(person)) for person in people]
    # As far as the pipeline has converted them.
    annotated = [one.source for one in warped]
    labelled = [one.visible for one in warped]
    places = np.stack([one.keypoints for one in warped])
    # Where the image has them, then what training had there.
    places = places + F.apply_affine(places, seen.field)
    if learned is not None:
        places = places - F.apply_affine(places, learned.field)
    points = network_sees(parts, places, np.stack(labelled))
    maps = parts.encode(points)
    mirrored = parts.encode(parts.mirror(points) + parts.dither)
    samples = [one.end['data_samples'] for one in warped]
    predicted, _ = parts.predict(maps, mirrored, samples)
    columns = annotated, predicted, labelled, areas, samples, warped
    return [Person(*person) for person in zip(*columns)]


def _round_trip(parts: Parts, coding: Coding) -> np.ndarray:
    """Forward warp against backward mapping (M, 2), input px."""
    kind = PIXELS if coding.kind == NEITHER else coding.kind
    pixels = _pixels(parts, np.random.default_rng(0))[next(parts.batches(8))]
    maps = parts.encode(places_of(parts, kind, pixels))
    # Whatever the codec reads, the estimator has to map back.
    read = _read(parts, coding.answer, maps)[:, parts.outputs]
    # The warp is one for all points, and known from four.
    corners = np.float32([[0, 0], [1, 0], [0, 1], [1, 1]]) * np.float32(IMAGE_SIZE)
    warped = []
    for person in random_people(parts, len(pixels)):
        like = np.ones_like(person['keypoints'])
        alike = [dict(person, keypoints=like * corner) for corner in corners]
        warped.append([parts.test.warp(one) for one in alike])
    samples = [one.end['data_samples'] for one, *_ in warped]
    predicted, _ = parts.predict(maps, maps, samples, flip_test=False)
    errors = []
    for found, points, answer in zip(warped, read, predicted):
        # A converter may leave some keypoints out.
        k = found[0].visible.argmax()
        inputs = np.stack([one.keypoints[k] for one in found])
        sources = np.stack([one.source[k] for one in found])
        backward, *_ = np.linalg.lstsq(np.c_[inputs, np.ones(4)], sources, rcond=None)
        error = answer - F.apply_affine(points, backward.T)
        errors.append(_to_input_px(parts, found[0], error))
    return np.concatenate(errors)
