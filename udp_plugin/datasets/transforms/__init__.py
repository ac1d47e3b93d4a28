from .offset_target_generator import OffsetTargetGenerator
from .topdown_affine_udp import TopDownAffineUDP

__all__ = ['OffsetTargetGenerator', 'TopDownAffineUDP']
