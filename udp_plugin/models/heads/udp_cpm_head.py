from mmpose.models.heads import CPMHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPCPMHead(UDPHead, CPMHead):
    """``CPMHead`` (also of stacked hourglasses) under UDP; stands in for it by name.

    Each stage has the same target, or with ``multilevel=True`` in
    ``OffsetTargetGenerator`` one of its own.

    Args:
        in_channels (int): Channels of each stage's features.
        out_channels (int): The number of keypoints K.
        num_stages (int): Number of stages.
        loss (dict | list[dict]): For all stages, or one for each; see
            :class:`UDPHeatmapHead`.
        decoder (dict): ``UDPGaussianHeatmap`` or ``UDPOffsetHeatmap``; required.
        **kwargs: As ``CPMHead``: ``deconv_out_channels``, ``deconv_kernel_sizes``,
            ``final_layer`` and ``init_cfg``.
    """
