from .udp_gaussian_heatmap import UDPGaussianHeatmap
from .udp_offset_heatmap import UDPOffsetHeatmap
from .udp_simcc_label import UDPSimCCLabel

__all__ = ['UDPGaussianHeatmap', 'UDPOffsetHeatmap', 'UDPSimCCLabel']
