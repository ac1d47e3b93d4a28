from mmpose.models.heads import SimCCHead
from mmpose.registry import MODELS

from .vectors import UDPVectorHead


@MODELS.register_module()
class UDPSimCCHead(UDPVectorHead, SimCCHead):
    """``SimCCHead`` under UDP; stands in for it by name.

    Takes the arguments of ``SimCCHead``; see :class:`~.vectors.UDPVectorHead`.
    """
