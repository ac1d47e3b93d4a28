from mmpose.models.heads import CPMHead
from mmpose.registry import MODELS

from .base import UDPHead


@MODELS.register_module()
class UDPCPMHead(UDPHead, CPMHead):
    """``CPMHead`` (also of stacked hourglasses) under UDP; stands in for it by name.

    Takes the arguments of ``CPMHead``; see :class:`~.base.UDPHead`. Each stage has
    the same target, or with ``multilevel=True`` in ``OffsetTargetGenerator`` one of
    its own.
    """
