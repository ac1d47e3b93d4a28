from mmpose.models.heads import ViPNASHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPViPNASHead(UDPHead, ViPNASHead):
    """``ViPNASHead`` under UDP; stands in for it by name.

    Takes the arguments of ``ViPNASHead``; see :class:`~.base.UDPHead`.
    """
