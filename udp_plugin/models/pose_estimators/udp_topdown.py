from typing import Optional

from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS
from mmpose.utils.typing import InstanceList, PixelDataList, SampleList

from udp_plugin import functional as F


@MODELS.register_module()
class UDPTopdownPoseEstimator(TopdownPoseEstimator):
    """A top-down estimator that maps predictions back by Eq. 47, rotation included.

    The stock ``TopdownPoseEstimator`` is exact for upright boxes; only data whose
    boxes are rotated at test time need this one. It takes the same arguments, and
    the rotation from :class:`TopDownAffineUDP`, through ``PackPoseInputs``, in
    ``gt_instances.bbox_rotations`` (shape (1,), degrees).
    """

    def add_pred_to_datasample(
        self,
        batch_pred_instances: InstanceList,
        batch_pred_fields: Optional[PixelDataList],
        batch_data_samples: SampleList,
    ) -> SampleList:
        """Map predictions to source px and add them to the data samples.

        Raises:
            ValueError: A sample does not say where its box is, or how it is rotated.
        """
        for data_sample in batch_data_samples:
            for key in ('input_center', 'input_scale', 'input_size'):
                if key not in data_sample.metainfo:
                    raise ValueError(
                        f'UDPTopdownPoseEstimator needs {key!r} of the samples; name '
                        'it in meta_keys of PackPoseInputs in the test pipeline, or '
                        'leave meta_keys out'
                    )
            if 'bbox_rotations' not in data_sample.gt_instances:
                raise ValueError(
                    'UDPTopdownPoseEstimator needs gt_instances.bbox_rotations, which '
                    'TopDownAffineUDP provides and PackPoseInputs of MMPose 1.2 or '
                    'later packs: use them in the test pipeline, in that order'
                )
        data_samples = super().add_pred_to_datasample(
            batch_pred_instances, batch_pred_fields, batch_data_samples
        )
        for data_sample in data_samples:
            # The stock estimator has undone everything but the rotation.
            pred = data_sample.pred_instances
            pred.keypoints[..., :2] = F.rotate(
                pred.keypoints[..., :2],
                center=data_sample.metainfo['input_center'],
                degrees=-float(data_sample.gt_instances.bbox_rotations[0]),
            )
        return data_samples
