from mmpose.models.heads import RTMCCHead
from mmpose.registry import MODELS

from .vectors import UDPVectorHead


@MODELS.register_module()
class UDPRTMCCHead(UDPVectorHead, RTMCCHead):
    """``RTMCCHead``, of RTMPose, under UDP; stands in for it by name.

    Takes the arguments of ``RTMCCHead``; see :class:`~.vectors.UDPVectorHead`.
    """
