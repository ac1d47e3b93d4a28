from typing import Optional

from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS
from mmpose.utils.typing import InstanceList, PixelDataList, SampleList
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.codecs.base import Distance


@MODELS.register_module()
class UDPTopdownPoseEstimator(TopdownPoseEstimator):
    """A top-down estimator that dithers the flip test, and maps rotated boxes back.

    It takes the arguments of ``TopdownPoseEstimator``. Two things differ from it:

    - Where the head keeps weights that were trained on rounded targets, the mirrored
      input is moved by :func:`udp_plugin.functional.dither`, so that one pass rounds up
      what the other rounds down. The head moves its maps back, and without a flip test
      nothing changes. (Visibilities of ``VisPredictHead`` come from the moved input.)
    - Of boxes that are rotated at test time, predictions are mapped back by Eq. 47. The
      rotation comes from :class:`TopDownAffineUDP`, through ``PackPoseInputs``, in
      ``gt_instances.bbox_rotations`` (shape (1,), degrees); a sample without it has an
      upright box.
    """

    @property
    def dither(self) -> Distance:
        """What a mirrored input is moved by, input px to the right and down."""
        head = getattr(self, 'head', None)
        # VisPredictHead holds the head that makes maps.
        head = getattr(head, 'pose_head', head)
        return getattr(getattr(head, 'reading', None), 'dither', (0.0, 0.0))

    def mirrored(self, inputs: Tensor) -> Tensor:
        """The mirrored inputs (B, C, H, W) of the flip test, dithered."""
        flipped = inputs.flip(-1)
        return F.move(flipped, self.dither) if any(self.dither) else flipped

    def predict(self, inputs: Tensor, data_samples: SampleList) -> SampleList:
        """Predict keypoints, see ``TopdownPoseEstimator.predict``."""
        if not self.test_cfg.get('flip_test', False) or not any(self.dither):
            return super().predict(inputs, data_samples)
        feats = [self.extract_feat(each) for each in (inputs, self.mirrored(inputs))]
        test_cfg = dict(self.test_cfg, dither=self.dither)
        preds = self.head.predict(feats, data_samples, test_cfg=test_cfg)
        preds, fields = preds if isinstance(preds, tuple) else (preds, None)
        return self.add_pred_to_datasample(preds, fields, data_samples)

    def add_pred_to_datasample(
        self,
        batch_pred_instances: InstanceList,
        batch_pred_fields: Optional[PixelDataList],
        batch_data_samples: SampleList,
    ) -> SampleList:
        """Map predictions to source px and add them to the data samples.

        Raises:
            ValueError: A sample does not say where its box is.
        """
        for data_sample in batch_data_samples:
            for key in ('input_center', 'input_scale', 'input_size'):
                if key not in data_sample.metainfo:
                    raise ValueError(
                        f'UDPTopdownPoseEstimator needs {key!r} of the samples; name '
                        'it in meta_keys of PackPoseInputs in the test pipeline, or '
                        'leave meta_keys out'
                    )
        data_samples = super().add_pred_to_datasample(
            batch_pred_instances, batch_pred_fields, batch_data_samples
        )
        for data_sample in data_samples:
            degrees = float(data_sample.gt_instances.get('bbox_rotations', [0.0])[0])
            if degrees:
                # The stock estimator has undone everything but the rotation.
                keypoints = data_sample.pred_instances.keypoints
                center = data_sample.metainfo['input_center']
                keypoints[..., :2] = F.rotate(keypoints[..., :2], center, -degrees)
        return data_samples
