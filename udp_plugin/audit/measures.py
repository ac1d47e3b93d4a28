"""What an audit measures, each on the config's own components.

All errors are in input px unless they are said to be in source px; a space is
measured by its *unit length* (unbiased) or by its number of *pixels* (biased), see
:mod:`udp_plugin.functional.geometry`.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from udp_plugin import functional as F

from .parts import Flow, Parts, Warped

#: How a component measures a space.
UNIT_LENGTH = 'unit length'
PIXELS = 'pixels'
#: As pixels, with a keypoint in the middle of its cell of ``s`` input px (Megvii).
CELLS = 'cells'
NEITHER = 'neither'

#: Persons sent through each pipeline.
PERSONS = 16
#: Keypoints coded for each distribution, about.
POINTS = 2048
#: Standard deviation of the noise on maps, as a part of their peak.
NOISE = 0.05
#: Positions nearer to the edge than this many heatmap px are those at the border.
BORDER = 2.0
#: The image in which persons stand, width and height.
IMAGE_SIZE = (640, 640)
#: Sigma of drawn blobs in input px, and least in source px; distance in sigmas.
BLOB_SIGMA = 3.0
BLOB_DISTANCE = 10
#: What the centroids of blobs can tell, input px.
SEEN = 0.01
#: Farther than this from an equation (heatmap px, on the mean), a target follows none.
CODING_TOLERANCE = 0.1


class Transform(NamedTuple):
    """How a pipeline warps.

    Attributes:
        flow: Which pipeline.
        kind: How it measures the input: unit length (Eq. 41), pixels (Eq. 30).
        deviation: Of keypoints from that equation, shape (M, 2).
        misfit: Where the image shows a keypoint, minus the keypoint, shape (M, 2).
        field: The affine map (2, 3) that fits the misfit at an input position.
        random: Whether a person comes out differently the next time; of test data.
        input_size: Of the image it makes.
    """

    flow: Flow
    kind: str
    deviation: np.ndarray
    misfit: np.ndarray
    field: np.ndarray
    random: bool
    input_size: Tuple[int, int]


class Coding(NamedTuple):
    """How keypoints become maps and are read from them.

    Attributes:
        kind: How the target measures the map: unit length (Eq. 43), pixels (Eq. 32),
            or cells.
        answer: How the codec's answer does, for the estimator: unit length (Eq. 47) or
            pixels (Eq. 33).
        positions: Where keypoints were, shape (M, 2), input px.
        errors: Of what is read there, shape (M, 2).
        border: For x and y: the errors along the axis on whose border keypoints were.
        noisy: As errors, with noise on the maps.
    """

    kind: str
    answer: str
    positions: np.ndarray
    errors: np.ndarray
    border: Tuple[np.ndarray, np.ndarray]
    noisy: np.ndarray


class Flip(NamedTuple):
    """How far mirrored maps lie from direct ones, each of shape (M, 2).

    The first four are what the targets would give in a plain flip test, ``configured``
    what the config's head makes of them (None without a flip test): where the maps that
    it reads have the keypoint, minus where the direct ones have it.
    """

    alone: np.ndarray
    shifted: np.ndarray
    averaged: np.ndarray
    averaged_shifted: np.ndarray
    configured: Optional[np.ndarray]


class EndToEnd(NamedTuple):
    """From source to source, as configured.

    Attributes:
        round_trip: Forward warp against backward mapping, of what the codec reads,
            shape (M, 2), input px.
        source_px, input_px: Errors of all keypoints in the input, shape (M, 2).
        oks: Of each person, shape (N,).
        outside: Labelled keypoints that are not in the input.
        persons: The persons, with what was predicted of them.
    """

    round_trip: np.ndarray
    source_px: np.ndarray
    input_px: np.ndarray
    oks: np.ndarray
    outside: int
    persons: List['Person']


class Person(NamedTuple):
    """A person, as annotated and as predicted.

    Attributes:
        annotated, predicted: Keypoints (K, 2), source px.
        labelled: Shape (K,).
        area: Source px squared.
        sample: The toolbox's data sample, with its prediction.
        warped: On the way to it.
    """

    annotated: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray
    area: float
    sample: Any
    warped: Warped


# --- 1. transform ---------------------------------------------------------------------


def measure_transform(parts: Parts, flow: Flow) -> Transform:
    """Warp persons of drawn blobs, and find the blobs and the equation again."""
    rng = np.random.default_rng(0)
    deviations: Dict[str, List[np.ndarray]] = {UNIT_LENGTH: [], PIXELS: []}
    misfits, positions = [], []
    unpredictable, size = False, (0, 0)
    np.random.seed(0)
    for _ in range(PERSONS):
        person, sigma = _person_of_blobs(parts, flow, rng)
        again = {k: np.copy(v) if k != 'img' else v for k, v in person.items()}
        warped = parts.warp(flow, person, to_the_end=False)
        if not flow.training:
            # As often as people come, since it may be a matter of luck.
            other = parts.warp(flow, again, to_the_end=False)
            unpredictable |= not np.array_equal(warped.keypoints, other.keypoints)
        size = (warped.image.shape[1], warped.image.shape[0])
        for kind in deviations:
            deviations[kind].append(_deviation(warped, size, kind == UNIT_LENGTH))
        pixel = warped.scale[0] / size[0]
        found, where = _blobs(warped, sigma / pixel)
        misfits.append(found - where)
        positions.append(where)
    fits = {kind: np.concatenate(d) for kind, d in deviations.items()}
    kind = min(fits, key=lambda name: np.abs(fits[name]).max())
    deviation = fits[kind]
    if np.abs(deviation).mean(0).max() > 1:
        kind = NEITHER
    misfit, where = np.concatenate(misfits), np.concatenate(positions)
    return Transform(
        flow=flow,
        kind=kind,
        deviation=deviation,
        misfit=misfit,
        field=_affine_fit(where, misfit),
        random=unpredictable,
        input_size=size,
    )


def _person_of_blobs(
    parts: Parts, flow: Flow, rng: np.random.Generator
) -> Tuple[dict, float]:
    """A person whose keypoints are drawn as blobs apart from each other."""
    width, height = IMAGE_SIZE
    side = rng.uniform(220, 420)
    aspect = parts.input_size[0] / parts.input_size[1]
    box_size = np.array([side * min(aspect, 1), side * min(1 / aspect, 1)])
    corner = rng.uniform(0, 1, 2) * (np.array(IMAGE_SIZE) - box_size)
    box = np.concatenate([corner, corner + box_size])
    # Padded by 1.25, the box has 0.8 of the input.
    scale = 0.8 * min(np.asarray(parts.input_size) / box_size)
    sigma = max(min(BLOB_SIGMA, min(parts.input_size) / 64) / scale, 2.0)
    apart = BLOB_DISTANCE * sigma
    counts = np.maximum(((box_size - 2 * sigma) // apart).astype(int), 1)
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing='ij'), -1)
    grid = grid.reshape(-1, 2) - (counts - 1) / 2
    places = box[:2] + box_size / 2 + grid * apart + rng.uniform(-1, 1, 2) * sigma
    x, y = np.arange(width), np.arange(height)
    image = np.zeros((height, width), np.float32)
    for place_x, place_y in places:
        # Beyond six sigma there is nothing to draw.
        near_x = np.abs(x - place_x) < 6 * sigma
        near_y = np.abs(y - place_y) < 6 * sigma
        across = np.exp(-((x[near_x] - place_x) ** 2) / (2 * sigma**2))
        down = np.exp(-((y[near_y] - place_y) ** 2) / (2 * sigma**2))
        image[np.ix_(near_y, near_x)] += down[:, None] * across
    image = np.repeat((255 * image).round().astype(np.uint8)[..., None], 3, -1)
    count = parts.metainfo_of(flow)['num_keypoints']
    keypoints = places[rng.permutation(np.arange(count) % len(places))]
    return parts.person(flow, image, box, keypoints), sigma


def _blobs(warped: Warped, sigma: float) -> Tuple[np.ndarray, np.ndarray]:
    """Centroids of the blobs around the keypoints, and the keypoints, each once."""
    places = np.unique(warped.keypoints.round(3), axis=0)
    image = warped.image.astype(float).mean(-1)
    height, width = image.shape
    reach = 4 * sigma
    inside = (
        (places > reach + 2) & (places < np.array([width, height]) - reach - 3)
    ).all(-1)
    places = places[inside]
    x, y = np.arange(width), np.arange(height)
    found = places.copy()
    for index in range(len(places)):
        for _ in range(3):
            # The window follows the blob, which it must not cut off.
            near_x = np.abs(x - found[index, 0]) <= reach
            near_y = np.abs(y - found[index, 1]) <= reach
            window = image[np.ix_(near_y, near_x)]
            mass = window.sum()
            if mass == 0:
                found[index] = np.nan
                break
            found[index] = (
                window.sum(0) @ x[near_x] / mass,
                window.sum(1) @ y[near_y] / mass,
            )
    return found, places


def _deviation(warped: Warped, size: Sequence[int], unbiased: bool) -> np.ndarray:
    """Of the keypoints from Eq. 41 (or 30) with the rotation that they have."""
    a_b = (F.unit_length(size) if unbiased else np.asarray(size)) / warped.scale
    before = warped.source - warped.center
    after = warped.keypoints / a_b - warped.scale / 2
    # The rotation that fits best: of the keypoints among themselves, whatever else
    # moves them, or of a single one about the box's centre.
    turned, onto = before, after
    if np.ptp(before, axis=0).max() > 1:
        turned, onto = before - before.mean(0), after - after.mean(0)
    sine = (turned[:, 0] * onto[:, 1] - turned[:, 1] * onto[:, 0]).sum()
    rotation = np.rad2deg(np.arctan2(sine, (turned * onto).sum()))
    expected = F.source_to_input(
        warped.source, warped.center, warped.scale, rotation, size, unbiased
    )
    return warped.keypoints - expected


def _affine_fit(positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The affine map (2, 3) from positions to values; zero where nothing shows."""
    known = np.isfinite(values).all(-1)
    if known.sum() < 6:
        return np.zeros((2, 3))
    design = np.c_[positions[known], np.ones(known.sum())]
    fitted, *_ = np.linalg.lstsq(design, values[known], rcond=None)
    if np.abs(design @ fitted).mean() < SEEN:
        return np.zeros((2, 3))
    return fitted.T


# --- 2. flip alignment ----------------------------------------------------------------


def measure_flip(parts: Parts, coding: Coding) -> Flip:
    """Code keypoints and their mirror images, and see where each map has them."""
    rng = np.random.default_rng(0)
    keypoints = _spread(parts, *_interior(parts), rng)
    (person,) = random_people(parts, 1)
    sample = parts.warp(parts.test, person).end['data_samples']
    flip_test = bool(parts.model.test_cfg.get('flip_test'))
    flip = parts.flip_indices()
    paired = np.array([flip[flip[k]] == k for k in range(parts.num_keypoints)])
    found: Dict[str, List[np.ndarray]] = {}
    for batch in parts.batches(len(keypoints)):
        points = keypoints[batch]
        seen = np.ones(points.shape[:2])
        maps = parts.encode(points, seen)
        mirrored = parts.mirror(points)
        mirrored = parts.encode(mirrored, np.isfinite(mirrored[..., 0]))
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
            _, variants['configured'] = parts.predict(maps, mirrored, copies)
        direct = locate(parts, coding, maps)
        for name, variant in variants.items():
            difference = locate(parts, coding, variant) - direct
            found.setdefault(name, []).append(difference[:, paired].reshape(-1, 2))
    arrays = {name: np.concatenate(parts_) for name, parts_ in found.items()}
    return Flip(**{'configured': None, **arrays})


def locate(parts: Parts, coding: Coding, maps: Tensor) -> np.ndarray:
    """Where maps have their keypoints, shape (N, K, 2), input px.

    Of heatmaps, the centroid, whatever their codec would read; of offset maps, what it
    reads.
    """
    if parts.channels == 3:
        return _in_input_px(parts, parts.decode(maps), coding.answer)
    return _places(coding.kind, centroids(maps), parts)


def centroids(maps: Tensor) -> np.ndarray:
    """Centroids (N, K, 2) of maps (N, K, H, W), heatmap px."""
    maps = maps.double()
    mass = maps.sum((-2, -1))
    x = maps.sum(-2) @ torch.arange(maps.shape[-1], dtype=maps.dtype) / mass
    y = maps.sum(-1) @ torch.arange(maps.shape[-2], dtype=maps.dtype) / mass
    return torch.stack((x, y), -1).numpy()


# --- 3. encode-decode -----------------------------------------------------------------


def measure_coding(parts: Parts) -> Coding:
    """Code keypoints at all sub-pixel positions, and read them."""
    rng = np.random.default_rng(0)
    kind = _coding_kind(parts, rng)
    answer = _answer_kind(parts, kind, rng)
    if parts.input_size == parts.heatmap_size and NEITHER not in (kind, answer):
        # At stride 1 only the answers differ.
        kind = answer

    def errors(points: np.ndarray, noise: float = 0.0) -> np.ndarray:
        found = np.empty_like(points)
        for batch in parts.batches(len(points)):
            maps = parts.encode(points[batch], np.ones(points[batch].shape[:2]))
            if noise:
                peak = float(maps[:, :: parts.channels].max())
                grain = rng.normal(0, noise * peak, maps.shape)
                maps = maps + torch.as_tensor(grain, dtype=maps.dtype)
            found[batch] = _in_input_px(parts, parts.decode(maps), answer)
        return found - points

    points = _spread(parts, *_interior(parts), rng)
    near_x, near_y = _border(parts, rng)
    # Fewer, since the noise of each pixel matters, not the place.
    some = points[: max(len(points) // 2, 1)]
    return Coding(
        kind=kind,
        answer=answer,
        positions=points.reshape(-1, 2),
        errors=errors(points).reshape(-1, 2),
        border=(errors(near_x)[..., 0].ravel(), errors(near_y)[..., 1].ravel()),
        noisy=errors(some, NOISE).reshape(-1, 2),
    )


def _in_input_px(parts: Parts, answers: np.ndarray, answer: str) -> np.ndarray:
    if answer == UNIT_LENGTH:
        return F.toolbox_to_input(answers, parts.input_size)
    return answers


def _interior(parts: Parts) -> Tuple[np.ndarray, np.ndarray]:
    """Start and length of where targets are whole, input px: whole heatmap pixels."""
    pixels = np.asarray(parts.heatmap_size)
    s = np.asarray(parts.input_size) / pixels
    margin = np.minimum(4 * _sigma(parts) + 1, pixels // 3)
    margin = np.ceil(margin)
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
    total = samples * count
    even = (np.arange(total) + 0.5) / total
    axes = [rng.permutation(even) for _ in range(2)]
    points = start + np.stack(axes, -1) * length
    return points.reshape(samples, count, 2)


def _border(parts: Parts, rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Keypoints on the border of x, and on that of y."""
    length = np.asarray(F.unit_length(parts.input_size), float)
    band = BORDER * np.asarray(parts.input_size) / np.asarray(parts.heatmap_size)
    found = []
    for axis in range(2):
        points = _spread(parts, np.zeros(2), length, rng)
        points = points[: max(len(points) // 4, 1)]
        along = points[..., axis] / length[axis] * 2 * band[axis]
        far = along > band[axis]
        points[..., axis] = np.where(far, length[axis] - (along - band[axis]), along)
        found.append(points)
    return found[0], found[1]


def _places(kind: str, pixels: np.ndarray, parts: Parts) -> np.ndarray:
    """Where keypoints (input px) are whose place on the map (heatmap px) is this."""
    t = F.stride(parts.input_size, parts.heatmap_size, kind == UNIT_LENGTH)
    return (pixels + 0.5) * t if kind == CELLS else pixels * t


def _coding_kind(parts: Parts, rng: np.random.Generator) -> str:
    """Which way of measuring the map explains where targets are.

    Targets may be rounded to pixels, so that only means over all sub-pixel positions
    tell: of each eighth of the map, or of each pixel where there are fewer.
    """
    start, length = np.zeros(2), np.asarray(F.unit_length(parts.input_size), float)
    points = _spread(parts, start, length, rng)
    located = []
    for batch in parts.batches(len(points)):
        maps = parts.encode(points[batch], np.ones(points[batch].shape[:2]))
        located.append(centroids(maps[:, :: parts.channels]))
    located = np.concatenate(located).reshape(-1, 2)
    points = points.reshape(-1, 2)
    start, length = _interior(parts)
    s = F.stride(parts.input_size, parts.heatmap_size, unbiased=False)
    residuals = {}
    for kind in (UNIT_LENGTH, PIXELS, CELLS):
        t = F.stride(parts.input_size, parts.heatmap_size, kind == UNIT_LENGTH)
        off = located - (points / t - (0.5 if kind == CELLS else 0.0))
        means = []
        for axis in range(2):
            part = (points[:, axis] - start[axis]) / length[axis]
            inside = (part >= 0) & (part < 1) & np.isfinite(off[:, axis])
            # Maps are cut at the border of the other axis, which moves nothing here.
            # Of less than a pixel, rounding would not average out.
            pieces = max(min(8, round(length[axis] / s[axis])), 1)
            for index in range(pieces):
                here = inside & ((part * pieces).astype(int) == index)
                if here.any():
                    means.append(off[here, axis].mean())
        residuals[kind] = np.sqrt(np.mean(np.square(means))) if means else np.inf
    best = min(residuals, key=residuals.get)
    return best if residuals[best] < CODING_TOLERANCE else NEITHER


def _answer_kind(parts: Parts, kind: str, rng: np.random.Generator) -> str:
    """How what is read measures the input, by keypoints on pixels of the map."""
    if kind == NEITHER:
        return NEITHER
    points = _places(kind, _pixels(parts, rng), parts)
    found = []
    for batch in parts.batches(len(points)):
        maps = parts.encode(points[batch], np.ones(points[batch].shape[:2]))
        found.append(parts.decode(maps))
    answers = np.concatenate(found)
    off = {
        which: np.median(np.abs(_in_input_px(parts, answers, which) - points))
        for which in (UNIT_LENGTH, PIXELS)
    }
    best = min(off, key=off.get)
    return best if off[best] < 0.25 * np.min(parts.input_size) / 64 else NEITHER


def _pixels(parts: Parts, rng: np.random.Generator) -> np.ndarray:
    """Pixels (N, K, 2) in the middle half of the map, where targets are whole."""
    size = np.asarray(parts.heatmap_size)
    edge = size // 4
    shape = (max(256 // parts.num_keypoints, 4), parts.num_keypoints, 2)
    return rng.integers(edge, size - edge, shape).astype(float)


# --- 4. end to end --------------------------------------------------------------------


def random_people(parts: Parts, count: int) -> List[dict]:
    """People at random places, as a data set has them."""
    rng = np.random.default_rng(0)
    width, height = IMAGE_SIZE
    image = np.full((height, width, 3), 127, np.uint8)
    people = []
    for index in range(count):
        box_size = rng.uniform([60, 120], [260, 420])
        corner = rng.uniform(0, 1, 2) * (np.array(IMAGE_SIZE) - box_size)
        box = np.concatenate([corner, corner + box_size])
        keypoints = rng.uniform(box[:2], box[2:], (parts.metainfo['num_keypoints'], 2))
        person = parts.person(parts.test, image, box, keypoints)
        people.append(dict(person, id=index + 1, img_id=index + 1))
    return people


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
        parts: The config's.
        coding: Its coding.
        seen: The test pipeline's transform.
        learned: The training pipeline's.
        people: As a data set has them.
        advance: Is told how many people have been done.
    """
    persons: List[Person] = []
    np.random.seed(0)
    for batch in parts.batches(len(people)):
        persons += _predict_people(parts, seen, learned, people[batch])
        advance(len(persons))
    source, pixels, outside = [], [], 0
    for person in persons:
        inside = _inside(person.warped.keypoints, parts.input_size)
        counted = person.labelled & inside
        outside += int((person.labelled & ~inside).sum())
        error = (person.predicted - person.annotated)[counted]
        source.append(error)
        pixels.append(error / person.warped.scale * F.unit_length(parts.input_size))
    sigmas = sigmas_of(parts)
    return EndToEnd(
        round_trip=_round_trip(parts, coding),
        source_px=np.concatenate(source),
        input_px=np.concatenate(pixels),
        oks=np.array([oks(person, sigmas) for person in persons]),
        outside=outside,
        persons=persons,
    )


def _inside(keypoints: np.ndarray, size: Sequence[int]) -> np.ndarray:
    return ((keypoints >= 0) & (keypoints <= F.unit_length(size))).all(-1)


def _predict_people(
    parts: Parts, seen: Transform, learned: Optional[Transform], people: Sequence[dict]
) -> List[Person]:
    annotated = [np.array(person['keypoints'][0, :, :2], float) for person in people]
    labelled = [_labelled(person) for person in people]
    areas = [_area(person) for person in people]
    warped = [parts.warp(parts.test, dict(person)) for person in people]
    places = np.stack([one.keypoints for one in warped])
    # Where the image has them, then what training had there.
    places = places + F.apply_affine(places, seen.field)
    if learned is not None:
        places = places - F.apply_affine(places, learned.field)
    # Of what is not in the input, a network sees the nearest; what is not labelled is
    # somewhere. Maps without a peak are no part of this: of them, some codecs read NaN.
    middle = np.asarray(parts.input_size) / 2
    places = np.where(np.stack(labelled)[..., None], places, middle)
    places = np.clip(places, 0, F.unit_length(parts.input_size))
    points = np.full((len(people), parts.num_keypoints, 2), middle)
    points[:, parts.outputs] = places
    seen_there = np.ones(points.shape[:2])
    mirrored = parts.mirror(points)
    seen_mirrored = np.isfinite(mirrored[..., 0]).astype(float)
    maps = parts.encode(points, seen_there)
    maps_mirrored = parts.encode(mirrored, seen_mirrored)
    samples = [one.end['data_samples'] for one in warped]
    predicted, _ = parts.predict(maps, maps_mirrored, samples)
    return [
        Person(*person)
        for person in zip(annotated, predicted, labelled, areas, samples, warped)
    ]


def _labelled(person: dict) -> np.ndarray:
    visible = np.asarray(person['keypoints_visible'], float)
    visible = visible[0, :, 0] if visible.ndim == 3 else visible[0]
    return visible > 0


def _area(person: dict) -> float:
    raw = person.get('raw_ann_info') or {}
    width, height = person['bbox'][0, 2:] - person['bbox'][0, :2]
    # The toolbox's stand-in for the outline's area.
    return float(raw.get('area') or 0.53 * width * height)


def sigmas_of(parts: Parts) -> np.ndarray:
    """OKS sigmas (K,) of the test data; a middling one of COCO's without any."""
    sigmas = parts.metainfo.get('sigmas')
    count = parts.metainfo['num_keypoints']
    if sigmas is None or len(sigmas) != count:
        return np.full(count, 0.05)
    return np.asarray(sigmas, float)


def oks(person: Person, sigmas: np.ndarray) -> float:
    """COCO's object keypoint similarity of a person's labelled keypoints."""
    squared = np.square(person.predicted - person.annotated).sum(-1)
    likeness = np.exp(-squared / (2 * person.area * np.square(2 * sigmas)))
    return float(likeness[person.labelled].mean()) if person.labelled.any() else 1.0


def _round_trip(parts: Parts, coding: Coding) -> np.ndarray:
    """Forward warp against backward mapping (M, 2), input px."""
    rng = np.random.default_rng(0)
    kind = PIXELS if coding.kind == NEITHER else coding.kind
    pixels = _pixels(parts, rng)[next(parts.batches(8))]
    points = _places(kind, pixels, parts)
    people = random_people(parts, len(points))
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * np.asarray(IMAGE_SIZE)
    warped, backwards = [], []
    for person in people:
        # The warp is one for all points, and known from four.
        found = [
            parts.warp(parts.test, _with_keypoints(person, corner))
            for corner in corners
        ]
        inputs = np.stack([one.keypoints[0] for one in found])
        sources = np.stack([one.source[0] for one in found])
        backward, *_ = np.linalg.lstsq(np.c_[inputs, np.ones(4)], sources, rcond=None)
        backwards.append(backward)
        warped.append(found[0])
    maps = parts.encode(points, np.ones(points.shape[:2]))
    samples = [one.end['data_samples'] for one in warped]
    predicted, _ = parts.predict(maps, maps, samples, flip_test=False)
    # Whatever the codec reads, the estimator has to map back.
    points = _in_input_px(parts, parts.decode(maps), coding.answer)
    errors = []
    for one, backward, points_of, found in zip(
        warped, backwards, points[:, parts.outputs], predicted
    ):
        source = np.c_[points_of, np.ones(len(points_of))] @ backward
        errors.append((found - source) / one.scale * F.unit_length(parts.input_size))
    return np.concatenate(errors)


def _with_keypoints(person: dict, place: np.ndarray) -> dict:
    keypoints = np.broadcast_to(place, person['keypoints'].shape)
    return dict(person, keypoints=keypoints.astype(np.float32))
