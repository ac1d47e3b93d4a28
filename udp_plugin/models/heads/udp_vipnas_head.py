from mmpose.models.heads import ViPNASHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPViPNASHead(UDPHead, ViPNASHead):
    """``ViPNASHead`` under UDP, for which it stands in by name.

    Args:
        **kwargs: As :class:`UDPHeatmapHead`, and ``deconv_num_groups``.
    """
