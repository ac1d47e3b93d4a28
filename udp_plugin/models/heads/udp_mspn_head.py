from mmpose.models.heads import MSPNHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPMSPNHead(UDPHead, MSPNHead):
    """``MSPNHead`` (also of RSN) under UDP; stands in for it by name.

    Takes the arguments of ``MSPNHead``, of which these are different here; see
    :class:`~.base.UDPHead` for them and for the errors.

    Args:
        out_channels (int): The number of keypoints K.
        level_indices (Sequence[int]): For each unit of each stage the target's
            level, that is, the index of its encoder in ``OffsetTargetGenerator``.
        loss (dict | list[dict]): For all units of all stages, or one for each.
        decoder (dict): Required. It must be the encoder of the last unit.
        use_prm (bool): Only False with ``UDPOffsetHeatmap``: the pose refine machine
            ends with a ReLU, and offsets need their sign.

    Raises:
        ValueError: ``use_prm`` with offsets.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.predict_layers[0].use_prm and self.decoder.channels_per_keypoint > 1:
            raise ValueError(
                'use_prm=True of UDPMSPNHead ends with a ReLU, so that the offsets of '
                f'{type(self.decoder).__name__} could not be negative; use '
                'use_prm=False or the codec UDPGaussianHeatmap'
            )
