from typing import Dict, Sequence

import cv2
import numpy as np
from mmpose.datasets.transforms import PackPoseInputs, TopdownAffine
from mmpose.registry import TRANSFORMS

from udp_plugin import functional as F
from udp_plugin.codecs.base import check_size


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

    Args:
        input_size: ``(width, height)`` of the network's input in pixels.
        use_udp: Only True; ``TopdownAffine`` has it.

    Raises:
        ValueError: ``input_size`` is not two integers, the biased warp is asked
            for, or (from the transform) a required key is missing, there is not
            exactly one box, or the box is empty or not finite.
    """

    def __init__(self, input_size: Sequence[int], use_udp: bool = True) -> None:
        if not use_udp:
            raise ValueError(
                'use_udp=False asks for the biased warp that TopDownAffineUDP '
                'replaces; remove it, or keep TopdownAffine'
            )
        super().__init__(check_size(input_size, 'input_size', least=2), use_udp=True)

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
        size = self.input_size
        scale = self._fix_aspect_ratio(results['bbox_scale'], size[0] / size[1])
        center, rotation = results['bbox_center'][0], results['bbox_rotation'][0]
        warp_mat = F.warp_matrix(center, scale[0], rotation, size)

        img = results['img']
        several = isinstance(img, (list, tuple))
        warped = [
            cv2.warpAffine(one, warp_mat, size, flags=cv2.INTER_LINEAR)
            for one in (img if several else [img])
        ]
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
