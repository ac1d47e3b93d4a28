"""Keypoints of the people in a photograph, by a model that ``udp-plugin export`` wrote.

Written to be read, as the reference for the same in another language. The model holds
the network, the flip test and the decoding; what is left to do around it are four
steps, each a method of :class:`PoseModel`:

1. :meth:`~PoseModel.regions`: a person's box, enlarged, is a region of the photograph,
2. :meth:`~PoseModel.crop` warps it to the network's input (Eq. 41),
3. :meth:`~PoseModel.predict` runs the model, for keypoints in input px,
4. :meth:`~PoseModel.to_source` maps these back (Eq. 47).

Coordinates are continuous; a pixel's *centre* has the pixel's integer index. Equations
are those of Huang et al., arXiv:1911.07524v2, and the only place that knows them is
:mod:`udp_plugin.functional.geometry`. Letters of shapes: N people, K keypoints, W and H
the width and height of the network's input, h and w those of the photograph.
"""

from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

from udp_plugin import functional as F

from .checks import check_boxes, check_image, check_rotations
from .session import BOX_INPUTS, open_model

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


class PoseModel:
    """A model that ``udp-plugin export`` wrote, with the steps around it.

    Args:
        path: The ``.onnx`` file.
        providers: onnxruntime's execution providers, such as
            ``['CUDAExecutionProvider']``; None is the CPU.

    Attributes:
        input_size: ``(W, H)`` of the network's input in pixels.
        heatmap_size: ``(width, height)`` of its output in pixels.
        codec: The ``type`` and the settings of its codec.
        keypoint_names: K names.
        flip_pairs: Pairs of indices of keypoints that are each other's mirror image.
        skeleton: Pairs of indices of keypoints between which lines are drawn.
        padding: The factor by which boxes are enlarged.
        color: ``'BGR'`` or ``'RGB'``: the order in which crops have their channels.
        normalized: Whether crops are float32, less ``mean`` and over ``std``; else
            they are uint8, and the model does that.
        mean, std: Three numbers each, in the order of ``color``.
        flip_test: Whether the model averages over the mirrored crop, too.
        takes_any_number: Of crops at a time; else one.
        config: The config that it was exported from.
        version: The version of this package that exported it.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: There is no such file.
        ValueError: It is no ONNX file, or not one that ``udp-plugin export`` wrote.
    """

    def __init__(
        self, path: Union[str, Path], providers: Optional[Sequence] = None
    ) -> None:
        self.session, metadata = open_model(path, providers)
        self.input_size: Tuple[int, int] = tuple(metadata['input_size'])
        self.heatmap_size: Tuple[int, int] = tuple(metadata['heatmap_size'])
        self.codec: Dict[str, Any] = metadata['codec']
        self.keypoint_names: Tuple[str, ...] = tuple(metadata['keypoint_names'])
        self.flip_pairs = tuple(map(tuple, metadata['flip_pairs']))
        self.skeleton = tuple(map(tuple, metadata['skeleton']))
        self.padding: float = metadata['padding']
        self.color: str = metadata['color']
        self.normalized: bool = metadata['normalized']
        self.mean: Tuple[float, ...] = tuple(metadata['mean'])
        self.std: Tuple[float, ...] = tuple(metadata['std'])
        self.flip_test: bool = metadata['flip_test']
        self.config: str = metadata['config']
        self.version: str = metadata['version']

        inputs = {each.name: each.shape for each in self.session.get_inputs()}
        self._takes_boxes = set(BOX_INPUTS) <= set(inputs)
        self.takes_any_number = inputs['crops'][0] != 1

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
        people, num_keypoints = len(regions.centers), len(self.keypoint_names)
        keypoints = np.empty((people, num_keypoints, 2))
        scores = np.empty((people, num_keypoints), dtype=np.float32)
        at_once = CROPS_AT_ONCE if self.takes_any_number else 1
        for first in range(0, people, at_once):
            some = slice(first, first + at_once)
            part = regions.part(some)
            found, scores[some] = self.predict(self.crop(image, part), part)
            keypoints[some] = self.to_source(found, part)
        return Keypoints(keypoints, scores)

    def regions(
        self, boxes: np.ndarray, rotations: Optional[np.ndarray] = None
    ) -> Regions:
        """Boxes, enlarged to show some surroundings and to the input's aspect ratio.

        Args:
            boxes: Left, top, right and bottom in source px, shape (N, 4).
            rotations: Degrees, shape (N,); None is zeros.

        Raises:
            ValueError: See :meth:`__call__`.
        """
        boxes = check_boxes(boxes)
        centers, scales = F.box_center_scale(boxes, self.padding)
        scales = F.widen(scales, self.input_size)
        return Regions(centers, scales, check_rotations(rotations, len(boxes)))

    def crop(self, image: np.ndarray, regions: Regions) -> np.ndarray:
        """The regions as the model takes them: step 2.

        Args:
            image: uint8 of shape (h, w, 3), BGR.
            regions: Of :meth:`regions`.

        Returns:
            Shape (N, 3, H, W), uint8, or float32 if the model takes normalised
            crops. What is outside of the photograph is black.
        """
        width, height = self.input_size
        crops = np.empty((len(regions.centers), height, width, 3), dtype=np.uint8)
        matrices = F.warp_matrix(*regions, self.input_size)
        for i, matrix in enumerate(matrices):
            crops[i] = cv2.warpAffine(
                image, matrix, self.input_size, flags=cv2.INTER_LINEAR
            )
        if self.color == 'RGB':
            crops = crops[..., ::-1]
        if self.normalized:
            crops = (crops - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))

    def predict(
        self, crops: np.ndarray, regions: Regions
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Run the model on as many crops as it takes at a time: step 3.

        Args:
            crops: Of :meth:`crop`, shape (N, 3, H, W).
            regions: Theirs; some models also map to the source themselves, in single
                precision, and are given them for it.

        Returns:
            tuple: keypoints in input px, float32 of shape (N, K, 2), where the last
            pixel centre is at ``(W - 1, H - 1)``; and scores, float32 of shape (N, K).
        """
        inputs = {'crops': crops}
        if self._takes_boxes:
            inputs.update(
                (name, each.astype(np.float32))
                for name, each in zip(BOX_INPUTS, regions)
            )
        keypoints, scores = self.session.run(['keypoints', 'scores'], inputs)
        return keypoints, scores

    def to_source(self, keypoints: np.ndarray, regions: Regions) -> np.ndarray:
        """Input px to source px, in double precision: step 4.

        Args:
            keypoints: Input px, shape (N, K, 2).
            regions: Those of the crops that they were found in.

        Returns:
            Source px, float64 of shape (N, K, 2).
        """
        return F.input_to_source(keypoints, *regions, self.input_size)


def whole(image: np.ndarray) -> np.ndarray:
    """The box of the whole photograph, as MMPose has it, shape (1, 4)."""
    height, width = image.shape[:2]
    return np.array([[0.0, 0.0, width, height]])
