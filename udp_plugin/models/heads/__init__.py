from .udp_cpm_head import UDPCPMHead
from .udp_heatmap_head import UDPHeatmapHead
from .udp_mspn_head import UDPMSPNHead
from .udp_rtmcc_head import UDPRTMCCHead
from .udp_rtmw_head import UDPRTMWHead
from .udp_simcc_head import UDPSimCCHead
from .udp_vipnas_head import UDPViPNASHead

__all__ = [
    'UDPCPMHead',
    'UDPHeatmapHead',
    'UDPMSPNHead',
    'UDPRTMCCHead',
    'UDPRTMWHead',
    'UDPSimCCHead',
    'UDPViPNASHead',
]
