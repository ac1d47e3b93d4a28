import logging
from typing import Dict, Sequence, Set

import cv2
import numpy as np
from mmengine.logging import print_log
from mmpose.datasets.transforms import PackPoseInputs, TopdownAffine
from mmpose.registry import TRANSFORMS

from udp_plugin import functional as F
from udp_plugin.codecs.base import check_size

#: OpenCV before version 5 warps images whose sides are shorter than this, in px.
OPENCV_LIMIT = 2**15 - 1


@TRANSFORMS.register_module()
class TopDownAffineUDP(TopdownAffine):
    """Warp a person's box to the network's input by unit lengths (Eq. 41).

    Stands in for ``TopdownAffine`` by name.

    Required Keys:

        - img: an image or a list of images
        - bbox_center: shape (1, 2), source px
        - bbox_scale: shape (1, 2), source px
        - bbox_rotation (optional): shape (1,), degrees
        - keypoints (optional): shape (1, K, D), source px

    Modified Keys:

        - img
        - bbox_scale: widened to the input's aspect ratio
        - bbox_rotation: zero if it was absent

    Added Keys:

        - input_size
        - input_center
        - input_scale
        - transformed_keypoints: shape (1, K, D), input px
        - warp_mat: shape (2, 3), float64, source px to input px

    An ``instance_mapping_table`` in the results has ``PackPoseInputs`` carry
    ``bbox_rotation`` on as ``gt_instances.bbox_rotations``, which
    :class:`UDPTopdownPoseEstimator` needs. A packer of your own with a table of its
    own has to know of it.

    A box without a size, or with NaN or infinity, as some detectors give, does not end
    a test. What is around its centre goes to the network (of an unknown centre, around
    the image's), and ``bbox_scale``, ``input_scale`` and ``bbox_score`` are 0. Of that
    the heads of this package make keypoints at the centre with scores of 0.

    Args:
        input_size: ``(width, height)`` of the network's input in pixels.
        use_udp: Only True; ``TopdownAffine`` has it.

    Raises:
        ValueError: ``input_size`` is not two integers, the biased warp is asked
            for, or (from the transform) a required key is missing, there is not
            exactly one box, its rotation is not finite, or the image is larger than
            OpenCV takes.
    """

    def __init__(self, input_size: Sequence[int], use_udp: bool = True) -> None:
        if not use_udp:
            raise ValueError(
                'use_udp=False asks for the biased warp that TopDownAffineUDP '
                'replaces; remove it, or keep TopdownAffine'
            )
        super().__init__(check_size(input_size, 'input_size', least=2), use_udp=True)
        self._said: Set[str] = set()

    def transform(self, results: Dict) -> dict:
        """Warp the image(s) and the keypoints of ``results``."""
        for key in ('img', 'bbox_center', 'bbox_scale'):
            if results.get(key) is None:
                raise ValueError(
                    f'TopDownAffineUDP needs {key!r} in the results (LoadImage and '
                    f'GetBBoxCenterScale go before it), got {sorted(results)}'
                )
        if results.get('bbox_rotation') is None:
            results['bbox_rotation'] = np.zeros(1, dtype=np.float32)
        shapes = dict(bbox_center=(1, 2), bbox_scale=(1, 2), bbox_rotation=(1,))
        for key, shape in shapes.items():
            if np.shape(results[key]) != shape:
                raise ValueError(
                    f'TopDownAffineUDP warps one box: {key} must have shape {shape}, '
                    f'got {np.shape(results[key])}'
                )
        size, img = self.input_size, results['img']
        several = isinstance(img, (list, tuple))
        images = img if several else [img]
        scale = self._fix_aspect_ratio(results['bbox_scale'], size[0] / size[1])
        shown = scale
        if not (np.isfinite([results['bbox_center'], scale]).all() and scale.min() > 0):
            self._replace_box(results, images[0])
            scale, shown = np.zeros_like(scale), np.array([size], scale.dtype)
        center, rotation = results['bbox_center'][0], results['bbox_rotation'][0]
        warp_mat = F.warp_matrix(center, shown[0], rotation, size)
        warped = [self._warp(one, warp_mat, results.get('img_path')) for one in images]
        results['img'] = warped if several else warped[0]

        keypoints = results.get('keypoints')
        if keypoints is None:
            # As TopdownAffine, for the transforms after it.
            results['transformed_keypoints'] = np.zeros([])
            results['keypoints_visible'] = np.ones((1, 1, 1))
        else:
            transformed = results.get('transformed_keypoints')
            transformed = np.array(keypoints if transformed is None else transformed)
            if transformed.dtype.kind != 'f':
                transformed = transformed.astype(np.float32)
            transformed[..., :2] = F.apply_affine(keypoints[..., :2], warp_mat)
            results['transformed_keypoints'] = transformed

        packed = results.get(
            'instance_mapping_table', PackPoseInputs.instance_mapping_table
        )
        results.update(
            bbox_scale=scale,
            input_size=size,
            input_center=center,
            input_scale=scale[0],
            warp_mat=warp_mat,
            instance_mapping_table=dict(packed, bbox_rotation='bbox_rotations'),
        )
        return results

    def _replace_box(self, results: Dict, image: np.ndarray) -> None:
        """Put a finite centre in the place of a box of nothing, and say so."""
        box, path = results.get('bbox'), str(results.get('img_path', 'an image'))
        if path not in self._said:
            self._said.add(path)
            print_log(
                f'TopDownAffineUDP got a box without a size in {path}, with center '
                f'{results["bbox_center"][0].tolist()} and scale '
                f'{results["bbox_scale"][0].tolist()}; its person has a score of 0. It '
                'comes from bbox_file or from the annotations.',
                logger='current',
                level=logging.WARNING,
            )
        center = results['bbox_center']
        if not np.isfinite(center).all():
            center = results['bbox_center'] = np.array([image.shape[1::-1]], 'f4') / 2
        if box is not None and not np.isfinite(box).all():
            results['bbox'] = np.hstack((center, center))
        if results.get('bbox_score') is not None:
            results['bbox_score'] = np.zeros_like(results['bbox_score'])

    def _warp(self, image: np.ndarray, matrix: np.ndarray, path: object) -> np.ndarray:
        try:
            return cv2.warpAffine(
                image, matrix, self.input_size, flags=cv2.INTER_LINEAR
            )
        except cv2.error as error:
            height, width = image.shape[:2]
            if max(height, width) < OPENCV_LIMIT:
                raise
            raise ValueError(
                f'TopDownAffineUDP cannot warp an image of {width}x{height} px '
                f'({path or "without a path"}), since OpenCV {cv2.__version__} takes '
                f'at most {OPENCV_LIMIT - 1} px a side; resize or crop the image, and '
                'its annotations with it'
            ) from error
