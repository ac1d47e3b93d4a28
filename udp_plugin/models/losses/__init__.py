from .udp_offset_loss import UDPOffsetLoss

__all__ = ['UDPOffsetLoss']
