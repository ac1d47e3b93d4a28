from .transforms import OffsetTargetGenerator, TopDownAffineUDP

__all__ = ['OffsetTargetGenerator', 'TopDownAffineUDP']
