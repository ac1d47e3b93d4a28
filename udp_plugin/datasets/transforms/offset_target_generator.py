from typing import Dict

from mmpose.datasets.transforms import GenerateTarget
from mmpose.registry import TRANSFORMS


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

    Args:
        encoder (dict | list[dict]): The codec's config, or several.
        target_type (str, optional): Deprecated and without effect.
        multilevel (bool): With several codecs: one target a level.
        use_dataset_keypoint_weights (bool): Multiply the weights by those of the
            data set's metainfo.

    Raises:
        ValueError: From the constructor, if ``multilevel`` has only one encoder;
            from the transform, if a required key is missing.
    """

    def __init__(
        self,
        encoder,
        target_type=None,
        multilevel: bool = False,
        use_dataset_keypoint_weights: bool = False,
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

    def transform(self, results: Dict) -> dict:
        """Encode the keypoints of ``results``."""
        required = ['keypoints_visible']
        if self.use_dataset_keypoint_weights:
            required.append('dataset_keypoint_weights')
        for key in required:
            if results.get(key) is None:
                raise ValueError(
                    f'OffsetTargetGenerator needs {key!r} in the results, got '
                    f'{sorted(results)}'
                )
        results = super().transform(results)
        weights = results.get('keypoint_weights')
        if self.use_dataset_keypoint_weights and isinstance(weights, list):
            dataset_weights = results['dataset_keypoint_weights']
            results['keypoint_weights'] = [w * dataset_weights for w in weights]
        return results
