from mmpose.models.heads.coord_cls_heads.rtmw_head import RTMWHead
from mmpose.registry import MODELS

from .vectors import UDPVectorHead


@MODELS.register_module()
class UDPRTMWHead(UDPVectorHead, RTMWHead):
    """``RTMWHead`` under UDP; stands in for it by name.

    Takes the arguments of ``RTMWHead``; see :class:`~.vectors.UDPVectorHead`.
    """
