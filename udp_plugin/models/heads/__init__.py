from .udp_heatmap_head import UDPHeatmapHead

__all__ = ['UDPHeatmapHead']
