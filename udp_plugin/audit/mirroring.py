"""Whether what a pipeline mirrors is the mirror image, keypoint by keypoint.

A pipeline draws its random numbers as often with other keypoints. So it warps, with
the same numbers, first all keypoints in one place, for a few places, which tells where
every point of the source comes to lie, whatever is swapped and converted; and then
each keypoint in its own place, which tells whose place in the source a keypoint of the
network has.
"""

import copy
import random
from typing import Iterator, List, NamedTuple

import cv2
import numpy as np

from udp_plugin import functional as F
from udp_plugin.convert.check import results_of
from udp_plugin.keypoint_names import side_of

from .flows import Flow, labelled_in
from .parts import Parts
from .people import IMAGE_SIZE

#: Seeds with which a pipeline runs without its mirroring, and again with it always.
SEEDS = 6
#: The box of the person, source px.
BOX = np.array([120.0, 100.0, 460.0, 540.0])
#: Farther than this (input px) from where it should be, a keypoint is another one's.
TOLERANCE = 1.0
#: The correlation of an image with what it should be, if it shows that at all.
ALIKE = 0.5


class Mirroring(NamedTuple):
    """What comes of left and right in a pipeline."""

    flow: Flow
    #: Keypoints of mirrored samples that are not at their mirror image's place.
    wrong: List[int]
    off: float  #: How far they are from it on average, input px.
    #: Whether some images show other things than those that are never mirrored.
    unseen: bool
    #: Keypoints of the samples that have other mirror images than before conversion.
    unconverted: List[int]
    crossed: List[str]  #: Names of keypoints that are converted to the other side's.


class _Sample(NamedTuple):
    """A person as the target is made."""

    affine: np.ndarray  #: From source px to input px, shape (2, 3).
    places: np.ndarray  #: Of keypoints (K, 2) in the source px of the original image.
    visible: np.ndarray  #: Shape (K,).
    shown: bool  #: Whether the image shows the source where the keypoints have it.
    flip_indices: List[int]

    @property
    def mirrored(self) -> bool:
        return np.linalg.det(self.affine[:, :2]) < 0


def measure_mirroring(parts: Parts, flow: Flow) -> Mirroring:
    """Compare mirrored samples of a pipeline with the mirrored truth.

    Raises:
        ValueError: Mirrored samples have another number of keypoints.
        Exception: Whatever a pipeline raises that does not go with what it mirrors.
    """
    person = _person(flow)
    samples = [*_samples(flow, person, 0.0)]
    if flow.training:
        samples += _samples(flow, person, 1.0)
    plain = next((one for one in samples if not one.mirrored), None)
    if plain is None:
        # Nothing to compare with.
        return Mirroring(flow, [], 0.0, False, [], [])
    count, off, unseen = len(plain.places), 0.0, False
    infos = getattr(parts.model, 'metainfo', None), parts.metainfo, flow.metainfo_at()
    flips = (info['flip_indices'] for info in infos if info)
    # Of other keypoints, nothing is known.
    flip = next((flip for flip in flips if len(flip) == count), None)
    for one in samples:
        if len(one.places) != count:
            raise ValueError(
                f'mirrored by flip_indices of {len(one.places)} keypoints, {count} '
                f'keypoints become {len(one.places)}'
            )
        truth = flip if one.mirrored else range(count)
        if truth is None:
            continue
        truth = np.asarray(truth)
        apart = (one.places - plain.places[truth]) @ one.affine[:, :2].T
        apart = np.linalg.norm(apart, axis=-1)
        known = one.visible & plain.visible[truth]
        off = np.maximum(off, np.where(known, apart, 0))
        unseen |= plain.shown and not one.shown
    wrong = np.flatnonzero(np.atleast_1d(off) > TOLERANCE)
    origin = _origins(plain, person['keypoints'][0])
    return Mirroring(
        flow=flow,
        wrong=wrong.tolist(),
        off=float(off[wrong].mean()) if len(wrong) else 0.0,
        unseen=bool(unseen),
        unconverted=_unconverted(flow, plain, origin),
        crossed=_crossed(parts, flow, origin),
    )


def _person(flow: Flow) -> dict:
    """A person with keypoints apart from each other, in an image of soft spots."""
    rng = np.random.default_rng(0)
    spots = rng.integers(0, 256, (9, 9), np.uint8)
    image = cv2.resize(spots, IMAGE_SIZE, interpolation=cv2.INTER_CUBIC)
    image = np.repeat(image[..., None], 3, -1)
    count = flow.metainfo['num_keypoints']
    keypoints = rng.permuted(np.linspace(BOX[:2], BOX[2:], count), axis=0)
    return results_of(flow.metainfo, image, BOX, keypoints)


def _samples(flow: Flow, person: dict, chance: float) -> Iterator[_Sample]:
    """Samples of the person with mirroring as probable as this."""
    flow, corners = flow.with_mirroring(chance), BOX[[[0, 1], [2, 1], [0, 3], [2, 3]]]
    for seed in range(SEEDS):
        found, own = [], person['keypoints']
        for keypoints in (
            *(np.ones_like(own) * np.float32(one) for one in corners),
            own,
        ):
            random.seed(seed)
            np.random.seed(seed)
            alike = copy.deepcopy(dict(person, keypoints=keypoints))
            found.append(flow.before_target(alike))
        results = found[-1]
        visible, flip = labelled_in(results), list(results['flip_indices'])
        warped = [one['transformed_keypoints'][0] for one in found]
        # Of a keypoint that no converter has left out.
        at = np.stack([one[visible.argmax()] for one in warped[:-1]]).astype(float)
        affine = np.linalg.lstsq(np.c_[corners, np.ones(4)], at, rcond=None)[0].T
        back = cv2.invertAffineTransform(affine)
        yield _Sample(
            affine=affine,
            places=F.apply_affine(warped[-1].astype(float), back),
            visible=visible,
            shown=_shown(person['img'], results['img'], affine),
            flip_indices=flip,
        )


def _shown(source: np.ndarray, image: np.ndarray, affine: np.ndarray) -> bool:
    """Whether an image is the source, warped, whatever was done to its colours."""
    size = image.shape[1::-1]
    expected = cv2.warpAffine(source[..., 0].astype(np.float32) + 1, affine, size)
    inside = expected > 1
    seen = image.reshape(*image.shape[:2], -1).astype(float).mean(-1)
    pair = expected[inside], seen[inside]
    return bool(np.corrcoef(*pair)[0, 1] > ALIKE)


def _origins(plain: _Sample, keypoints: np.ndarray) -> List[int]:
    """The data set's keypoint that each of the sample's is; -1 of others."""
    apart = np.linalg.norm(plain.places[:, None] - keypoints, axis=-1)
    found = np.where(plain.visible & (apart.min(1) < TOLERANCE), apart.argmin(1), -1)
    return found.tolist()


def _unconverted(flow: Flow, plain: _Sample, origin: List[int]) -> List[int]:
    """Keypoints that test samples give other mirror images than the data set does."""
    if flow.training or flow.replaced:
        return []
    mirrors = [flow.metainfo['flip_indices'][k] if k >= 0 else -1 for k in origin]
    return [
        k
        for k, mirror in enumerate(mirrors)
        if mirror in origin and mirror >= 0 and origin[plain.flip_indices[k]] != mirror
    ]


def _crossed(parts: Parts, flow: Flow, origin: List[int]) -> List[str]:
    """Keypoints of one side that are converted to keypoints of the other, by names."""
    before = flow.metainfo['keypoint_id2name']
    info = flow.metainfo_at() if flow.replaced else parts.metainfo
    after = info['keypoint_id2name']
    if len(after) != len(origin) or origin == list(range(len(before))):
        return []
    pairs = [(before[k], after[i]) for i, k in enumerate(origin) if k >= 0]
    opposite = {'left', 'right'}
    return [
        f'{one} to {other}'
        for one, other in pairs
        if {side_of(one), side_of(other)} == opposite
    ]
