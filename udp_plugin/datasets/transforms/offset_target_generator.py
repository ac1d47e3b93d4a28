from typing import Dict, List, Sequence

import mmpose
import numpy as np
from mmengine.utils import digit_version
from mmpose.datasets.transforms import GenerateTarget
from mmpose.registry import TRANSFORMS

from udp_plugin.codecs.base import UDPCodec, check_one_instance


class KeypointsForTheHead:
    """What ``GenerateTarget`` takes for a codec, which leaves the maps to the head.

    :func:`~udp_plugin.models.heads.base.batch_targets` reads what it encodes.

    Args:
        codecs: One a level.
    """

    auxiliary_encode_keys = ()
    field_mapping_table = dict()
    instance_mapping_table = dict()
    label_mapping_table = {
        key: key for key in ('target_keypoints', 'target_codecs', 'keypoint_weights')
    }

    def __init__(self, codecs: Sequence[UDPCodec]) -> None:
        self.codecs = tuple(codecs)

    def encode(self, keypoints: np.ndarray, keypoints_visible: np.ndarray) -> dict:
        """The keypoints (1, K, 3), float32: x and y in input px, and visibility.

        With them go the codecs, and weights of one, (1, K), which are multiplied by
        the data set's, and by which the head multiplies the codec's.

        Args:
            keypoints: Shape (1, K, D), D >= 2, input px; else a ``ValueError``.
            keypoints_visible: Shape (1, K); else a ``ValueError``.
        """
        check_one_instance(keypoints, 'OffsetTargetGenerator')
        if keypoints_visible.shape != keypoints.shape[:-1]:
            raise ValueError(
                f'keypoints_visible must have shape {keypoints.shape[:-1]} to go with '
                f'keypoints of shape {keypoints.shape}, got {keypoints_visible.shape}'
            )
        points = np.dstack((keypoints[..., :2], keypoints_visible))
        return dict(
            target_keypoints=points.astype(np.float32),
            # One instance's, in a tuple: the packer would make an array of a list.
            target_codecs=(self.codecs,),
            keypoint_weights=np.ones(keypoints_visible.shape, np.float32),
        )


@TRANSFORMS.register_module()
class OffsetTargetGenerator(GenerateTarget):
    """Make the training target with the codec(s) that the config gives.

    Stands in for ``GenerateTarget`` by name, with its arguments and results. It
    also applies ``use_dataset_keypoint_weights`` to a list of encoders, where
    ``GenerateTarget`` (MMPose 1.3.2) loses them.

    Required Keys:

        - transformed_keypoints, or else keypoints: shape (1, K, D), input px
        - keypoints_visible: shape (1, K), or (1, K, 2) with weights
        - dataset_keypoint_weights (with ``use_dataset_keypoint_weights``)

    Added Keys:

        - what the codec encodes: ``heatmaps`` and ``keypoint_weights``
        - with ``on_device`` instead: ``target_keypoints``, shape (1, K, 3),
          ``target_codecs`` and ``keypoint_weights``

    Args:
        encoder (dict | list[dict]): The codec's config, or several.
        target_type (str, optional): Deprecated and without effect.
        multilevel (bool): With several codecs: one target a level.
        use_dataset_keypoint_weights (bool): Multiply the weights by those of the
            data set's metainfo.
        on_device (bool): Make no maps here, but send the keypoints, in single
            precision, and let the head make the maps of the whole batch on the model's
            device: 16 bytes a keypoint in the place of 12 (offset codec) or 4
            (Gaussian) a pixel of its map. For many keypoints or large maps, where the
            data loader's workers or the shared memory hold up the training. It takes a
            codec and a head of this package; other heads fail with
            ``'PoseDataSample' object has no attribute '_gt_fields'``.

    Raises:
        ValueError: From the constructor, if ``multilevel`` has only one encoder, or
            ``on_device`` a codec of another package or several encoders without
            ``multilevel``, or MMPose is older than 1.2; from the transform, if a
            required key is missing or the keypoints are not those of one instance.
    """

    def __init__(
        self,
        encoder,
        target_type=None,
        multilevel: bool = False,
        use_dataset_keypoint_weights: bool = False,
        on_device: bool = False,
    ) -> None:
        if multilevel and not isinstance(encoder, (list, tuple)):
            raise ValueError(
                'multilevel=True needs a list of encoders, one a level, got '
                f'{type(encoder).__name__}'
            )
        super().__init__(
            encoder=list(encoder) if isinstance(encoder, tuple) else encoder,
            target_type=target_type,
            multilevel=multilevel,
            use_dataset_keypoint_weights=use_dataset_keypoint_weights,
        )
        self.on_device = on_device
        if on_device:
            self.encoder = KeypointsForTheHead(self._codecs_for_the_head())

    def _codecs_for_the_head(self) -> List[UDPCodec]:
        if digit_version(mmpose.__version__) < digit_version('1.2'):
            # Its PackPoseInputs packs nothing but what it knows by name.
            raise ValueError(
                f'on_device=True needs MMPose 1.2 or later, got {mmpose.__version__}: '
                'update MMPose, or remove it'
            )
        codecs = self.encoder if isinstance(self.encoder, list) else [self.encoder]
        for codec in codecs:
            if not isinstance(codec, UDPCodec):
                raise ValueError(
                    'encoder must be UDPGaussianHeatmap or UDPOffsetHeatmap with '
                    f'on_device=True, got {type(codec).__name__}; swap the codec by '
                    'name, or remove on_device=True'
                )
        if len(codecs) != 1 and not self.multilevel:
            raise ValueError(
                f'encoder is a list of {len(codecs)} with on_device=True and '
                'multilevel=False; give one encoder, or with multilevel=True one a '
                'level'
            )
        return codecs

    def transform(self, results: Dict) -> dict:
        """Encode the keypoints of ``results``."""
        for key in ('keypoints_visible', 'dataset_keypoint_weights'):
            needed = key == 'keypoints_visible' or self.use_dataset_keypoint_weights
            if needed and results.get(key) is None:
                raise ValueError(
                    f'OffsetTargetGenerator needs {key!r} in the results, got '
                    f'{sorted(results)}'
                )
        points = results.get('transformed_keypoints', results.get('keypoints'))
        if np.ndim(points) == 0:
            # As the warp leaves it to people whom nobody has annotated.
            raise ValueError(
                'OffsetTargetGenerator found no keypoints to make targets of; it '
                'belongs into training alone: remove it from the test pipeline'
            )
        results = super().transform(results)
        weights = results.get('keypoint_weights')
        if self.use_dataset_keypoint_weights and isinstance(weights, list):
            of_dataset = results['dataset_keypoint_weights']
            results['keypoint_weights'] = [level * of_dataset for level in weights]
        return results
