from mmpose.models.heads import HeatmapHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPHeatmapHead(UDPHead, HeatmapHead):
    """``HeatmapHead`` under UDP; stands in for it by name.

    Takes the arguments of ``HeatmapHead``, and a stock UDP checkpoint loads; see
    :class:`~.base.UDPHead`.

    Example:
        >>> codec = dict(input_size=(192, 256), heatmap_size=(48, 64))
        >>> UDPHeatmapHead(8, 17, decoder=dict(type='UDPOffsetHeatmap', **codec))
    """
