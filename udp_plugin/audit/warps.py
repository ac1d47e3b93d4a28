"""How a config's pipelines warp: people of drawn blobs are warped and found again.

A component measures a space by its *unit length* (unbiased) or by its number of
*pixels* (biased), see :mod:`udp_plugin.functional.geometry`.
"""

from typing import NamedTuple, Tuple

import numpy as np

from udp_plugin import functional as F
from udp_plugin.convert.check import results_of
from udp_plugin.functional.geometry import PIXELS, UNIT_LENGTH

from .flows import Flow, Warped
from .parts import Parts
from .people import IMAGE_SIZE

#: As pixels, with a keypoint in the middle of its cell of ``s`` input px (Megvii).
CELLS = 'cells'
NEITHER = 'neither'

#: Persons sent through each pipeline.
PERSONS = 16
#: Sigma of drawn blobs in input px, and least in source px; distance in sigmas.
BLOB_SIGMA, BLOB_SIGMA_LEAST = 3.0, 2.0
BLOB_DISTANCE = 10
#: What the centroids of blobs can tell, input px.
SEEN = 0.01


class Transform(NamedTuple):
    """How a pipeline warps; errors are (M, 2) in input px."""

    flow: Flow
    kind: str  #: How it measures the input: unit length (Eq. 41) or pixels (Eq. 30).
    deviation: np.ndarray  #: Of keypoints from that equation.
    misfit: np.ndarray  #: Where the image shows a keypoint, minus the keypoint.
    field: np.ndarray  #: The affine map (2, 3) that fits the misfit at a position.
    random: bool  #: Whether a person of test data comes out differently the next time.
    input_size: Tuple[int, int]  #: Of the image it makes, width and height in pixels.


def measure_transform(parts: Parts, flow: Flow) -> Transform:
    """Warp persons of drawn blobs, and find the blobs and the equation again."""
    rng = np.random.default_rng(0)
    deviations, misfits, positions = [], [], []
    unpredictable = False
    np.random.seed(0)
    for _ in range(PERSONS):
        person, sigma = _person_of_blobs(parts, flow, rng)
        again = {k: np.copy(v) if k != 'img' else v for k, v in person.items()}
        warped = flow.warp(person, to_the_end=False)
        if not flow.training:
            # As often as people come, since it may be a matter of luck.
            other = flow.warp(again, to_the_end=False)
            unpredictable |= not np.array_equal(warped.keypoints, other.keypoints)
        deviations.append([_deviation(warped, unbiased) for unbiased in (True, False)])
        pixel = warped.scale[0] / warped.size[0]
        drawn = np.delete(warped.keypoints, flow.averaged, 0)
        found, where = _blobs(warped._replace(keypoints=drawn), sigma / pixel)
        misfits.append(found - where)
        positions.append(where)
    # One for each measure.
    fits = dict(zip((UNIT_LENGTH, PIXELS), np.concatenate(deviations, 1)))
    kind = min(fits, key=lambda name: np.abs(fits[name]).max())
    deviation, misfit = fits[kind], np.concatenate(misfits)
    return Transform(
        flow=flow,
        kind=NEITHER if np.abs(deviation).mean(0).max() > 1 else kind,
        deviation=deviation,
        misfit=misfit,
        field=_affine_fit(np.concatenate(positions), misfit),
        random=unpredictable,
        input_size=warped.size,
    )


def _person_of_blobs(
    parts: Parts, flow: Flow, rng: np.random.Generator
) -> Tuple[dict, float]:
    """A person whose keypoints are drawn as blobs apart from each other."""
    side = rng.uniform(220, 420)
    aspect = parts.input_size[0] / parts.input_size[1]
    box_size = np.array([side * min(aspect, 1), side * min(1 / aspect, 1)])
    corner = rng.uniform(0, 1, 2) * (np.array(IMAGE_SIZE) - box_size)
    box = np.concatenate([corner, corner + box_size])
    # Padded by 1.25, the box has 0.8 of the input.
    scale = 0.8 * min(np.asarray(parts.input_size) / box_size)
    sigma = min(BLOB_SIGMA, min(parts.input_size) / 64) / scale
    sigma = max(sigma, BLOB_SIGMA_LEAST)
    apart = BLOB_DISTANCE * sigma
    counts = np.maximum(((box_size - 2 * sigma) // apart).astype(int), 1)
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing='ij'), -1)
    grid = grid.reshape(-1, 2) - (counts - 1) / 2
    places = box[:2] + box_size / 2 + grid * apart + rng.uniform(-1, 1, 2) * sigma
    # Of each blob the profile of each axis; beyond six sigma there is nothing to draw.
    profiles = []
    for axis, pixels in enumerate(IMAGE_SIZE):
        away = np.arange(pixels) - places[:, axis, None]
        profile = np.exp(-(away**2) / (2 * sigma**2))
        profiles.append(np.where(np.abs(away) < 6 * sigma, profile, 0))
    image = profiles[1].T @ profiles[0]
    image = np.repeat((255 * image).round().astype(np.uint8)[..., None], 3, -1)
    count = flow.metainfo['num_keypoints']
    keypoints = places[rng.permutation(np.arange(count) % len(places))]
    return results_of(flow.metainfo, image, box, keypoints), sigma


def _blobs(warped: Warped, sigma: float) -> Tuple[np.ndarray, np.ndarray]:
    """Centroids of the blobs around the keypoints, and the keypoints, each once."""
    places = np.unique(warped.keypoints.round(3), axis=0)
    image = warped.image.astype(float).mean(-1)
    reach = 4 * sigma
    inside = (places > reach + 2) & (places < np.array(warped.size) - reach - 3)
    places = places[inside.all(-1)]
    x, y = map(np.arange, warped.size)
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
            across, down = window.sum(0) @ x[near_x], window.sum(1) @ y[near_y]
            found[index] = across / mass, down / mass
    return found, places


def _deviation(warped: Warped, unbiased: bool) -> np.ndarray:
    """Of the keypoints from Eq. 41 (or 30) with the rotation that they have."""
    size = warped.size
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
    return warped.keypoints - F.source_to_input(
        warped.source, warped.center, warped.scale, rotation, size, unbiased
    )


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
