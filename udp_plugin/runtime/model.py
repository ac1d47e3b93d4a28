"""Keypoints of the people in a photograph, by a model that ``udp-plugin export`` wrote.

Written to be read, as the reference for the same in another language. The model holds
the network, the flip test and the decoding; what is left to do around it are four
steps, each a method of :class:`PoseModel`:

1. :meth:`~PoseModel.regions`: a person's box, enlarged, is a region of the photograph,
2. :meth:`~PoseModel.crop` warps it to the network's input (Eq. 41, or 30 if biased),
3. :meth:`~PoseModel.predict` runs the model, for keypoints in input px,
4. :meth:`~PoseModel.to_source` maps these back (Eq. 47, or 33 if biased).

Coordinates are continuous; a pixel's *centre* has the pixel's integer index. Equations
are those of Huang et al., arXiv:1911.07524v2, and the only place that knows them is
:mod:`udp_plugin.functional.geometry`. Letters of shapes: N people, K keypoints, W and H
the width and height of the network's input, h and w those of the photograph.
"""

from typing import List, NamedTuple, Optional, Sequence

import cv2
import numpy as np

from udp_plugin import functional as F

from .checks import check_boxes, check_image, check_rotations
from .metadata import AGAIN, plain
from .session import BOX_INPUTS, ExportedModel

#: So many crops go into the model at a time, if it takes several.
CROPS_AT_ONCE = 32


class Regions(NamedTuple):
    """The parts of a photograph that the network sees.

    Attributes:
        centers: Source px, float64 of shape (N, 2).
        scales: Widths and heights in source px, float64 of shape (N, 2), with the
            aspect ratio of the network's input.
        rotations: Degrees, from the x axis towards the y axis, float64 of shape (N,).
    """

    centers: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray

    def part(self, indices: slice) -> 'Regions':
        """Those of some people."""
        return Regions(*(each[indices] for each in self))


class Keypoints(NamedTuple):
    """Where the keypoints are.

    Attributes:
        keypoints: Source px, float64 of shape (N, K, 2).
        scores: How sure the model is, float32 of shape (N, K).
    """

    keypoints: np.ndarray
    scores: np.ndarray


class PoseModel(ExportedModel):
    """A model that ``udp-plugin export`` wrote, with the steps around it.

    Arguments and attributes are those of
    :class:`~udp_plugin.runtime.session.ExportedModel`.
    """

    def __call__(
        self,
        image: np.ndarray,
        boxes: Optional[np.ndarray] = None,
        rotations: Optional[np.ndarray] = None,
    ) -> Keypoints:
        """The keypoints of each person.

        Args:
            image: The photograph, uint8 of shape (h, w, 3), BGR as of ``cv2.imread``.
            boxes: Left, top, right and bottom of each person in source px, shape
                (N, 4); they may reach out of the photograph. None is one person who
                fills it.
            rotations: Of the boxes about their centres, degrees from the x axis
                towards the y axis, shape (N,); None is upright.

        Returns:
            Keypoints: in source px, and their scores, both empty if there is no box.

        Raises:
            ValueError: ``image`` is no photograph, or a box is not finite or not
                larger than nothing; the message says which.
        """
        image = check_image(image)
        regions = self.regions(whole(image) if boxes is None else boxes, rotations)
        shape = len(regions.centers), len(self.keypoint_names)
        found, scores = np.empty((*shape, 2)), np.empty(shape, dtype=np.float32)
        at_once = CROPS_AT_ONCE if self.takes_any_number else 1
        for first in range(0, len(found), at_once):
            some = slice(first, first + at_once)
            part = regions.part(some)
            found[some], scores[some] = self.predict(self.crop(image, part), part)
        return Keypoints(self.to_source(found, regions), scores)

    def regions(
        self, boxes: np.ndarray, rotations: Optional[np.ndarray] = None
    ) -> Regions:
        """Boxes, enlarged to show some surroundings and to the input's aspect ratio.

        This is step 1. Arguments and errors are those of :meth:`__call__`.
        """
        boxes = check_boxes(boxes)
        centers, scales = F.box_center_scale(boxes, self.padding)
        scales = F.widen(scales, self.input_size)
        return Regions(centers, scales, check_rotations(rotations, len(boxes)))

    def crop(self, image: np.ndarray, regions: Regions) -> np.ndarray:
        """The regions of an image (h, w, 3) as the model takes them: step 2.

        Returns:
            Shape (N, 3, H, W), or (N, 1, H, W) of models of grey photographs, which
            one in colour becomes as by ``mmcv.bgr2gray``. They are resampled
            bilinearly, uint8, or float32 if the model takes normalised crops. What is
            outside of the photograph is black.
        """
        width, height = self.input_size
        shape = len(regions.centers), height, width, self.channels
        crops = np.empty(shape, dtype=np.uint8)
        if self.channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        for i, matrix in enumerate(self.warp_matrices(regions)):
            warped = cv2.warpAffine(image, matrix, self.input_size)
            crops[i] = warped.reshape(shape[1:])
        if self.color == 'RGB':
            crops = crops[..., ::-1]
        if self.normalized:
            crops = (crops - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))

    def warp_matrices(self, regions: Regions) -> np.ndarray:
        """The affine maps from source px to input px: Eq. 41, or Eq. 30 if biased.

        The toolbox's own ``TopdownAffine`` rounds them to single precision, or the
        points that give them. That moves a crop by some 1e-5 px, and some of its pixels
        by a level.

        Returns:
            Shape (N, 2, 3).
        """
        if self.measure == F.UNIT_LENGTH:
            matrices = F.warp_matrix(*regions, self.input_size)
            single = self.warp == 'TopdownAffine'
            return matrices.astype(np.float32) if single else matrices
        # The input's middle, that of its left edge, and from there as far down.
        middle = np.array(self.input_size) / 2
        points = np.array([middle, middle * [0, 1]])
        inputs = _with_third(points)
        sources = F.input_to_source(points, *regions, self.input_size, unbiased=False)
        matrices = [cv2.getAffineTransform(_with_third(s), inputs) for s in sources]
        return np.reshape(matrices, (-1, 2, 3))

    def predict(
        self,
        crops: np.ndarray,
        regions: Regions,
        outputs: Sequence[str] = ('keypoints', 'scores'),
    ) -> List[np.ndarray]:
        """Run the model on as many crops as it takes at a time: step 3.

        Args:
            crops: Of :meth:`crop`, shape (N, 3, H, W) or (N, 1, H, W).
            regions: Theirs; some models also map to the source themselves, in single
                precision, and are given them for it.
            outputs: Names of what is wanted.

        Returns:
            Keypoints in input px, float32 of shape (N, K, 2), where the last pixel
            centre is at ``(W - 1, H - 1)``; and scores, float32 of shape (N, K).

        Raises:
            ValueError: The model fails, for want of memory, say, or its answers have
                another shape.
        """
        inputs = dict(crops=crops)
        if self.takes_boxes:
            inputs.update(zip(BOX_INPUTS, map(np.float32, regions)))
        try:
            answers = self.session.run(list(outputs), inputs)
        # onnxruntime's errors have no base but this one.
        except Exception as error:
            crops = f'{len(crops)} crop{"s" * (len(crops) != 1)}'
            raise ValueError(
                f'model {self.path} fails on {crops}: {plain(error)}'
            ) from error
        count = len(crops), len(self.keypoint_names)
        for name, answer in zip(outputs, answers):
            shape = count if name == 'scores' else (*count, 2)
            if answer.shape != shape:
                raise ValueError(
                    f'model {self.path} must give {name} of shape {shape}, got shape '
                    f'{answer.shape}; {AGAIN}'
                )
        return answers

    def to_source(self, keypoints: np.ndarray, regions: Regions) -> np.ndarray:
        """Keypoints (N, K, 2) in input px to source px, in float64: step 4."""
        unbiased = self.measure == F.UNIT_LENGTH
        return F.input_to_source(keypoints, *regions, self.input_size, unbiased)


def _with_third(points: np.ndarray) -> np.ndarray:
    """Two points, and the first turned about the second by 90 degrees, in float32."""
    first, second = points.astype(np.float32)
    x, y = first - second
    return np.array([first, second, second + np.array([-y, x])])


def whole(image: np.ndarray) -> np.ndarray:
    """The box of the whole photograph, as MMPose has it, shape (1, 4)."""
    return np.array([[0.0, 0.0, *image.shape[1::-1]]])
