from mmpose.models.heads import HeatmapHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPHeatmapHead(UDPHead, HeatmapHead):
    """``HeatmapHead`` that takes from its codec what belongs together under UDP.

    Stands in for ``HeatmapHead`` by name, with its arguments and parameters; a
    stock UDP checkpoint loads. See :class:`~.base.UDPHead` for what is derived and
    which errors are raised.

    Args:
        in_channels (int | Sequence[int]): Channels of the features.
        out_channels (int): The number of keypoints K.
        loss (dict): ``UDPGaussianHeatmap`` takes any stock heatmap loss,
            ``UDPOffsetHeatmap`` those named in :class:`~.base.UDPHead`.
        decoder (dict): ``UDPGaussianHeatmap`` or ``UDPOffsetHeatmap``; required.
        **kwargs: As ``HeatmapHead``: ``deconv_out_channels``,
            ``deconv_kernel_sizes``, ``conv_out_channels``, ``conv_kernel_sizes``,
            ``final_layer`` and ``init_cfg``.
    """
