from .udp_gaussian_heatmap import UDPGaussianHeatmap
from .udp_offset_heatmap import UDPOffsetHeatmap

__all__ = ['UDPGaussianHeatmap', 'UDPOffsetHeatmap']
