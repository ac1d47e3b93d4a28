from .heads import UDPCPMHead, UDPHeatmapHead, UDPMSPNHead, UDPViPNASHead
from .losses import UDPOffsetLoss
from .pose_estimators import UDPTopdownPoseEstimator

__all__ = [
    'UDPCPMHead',
    'UDPHeatmapHead',
    'UDPMSPNHead',
    'UDPOffsetLoss',
    'UDPTopdownPoseEstimator',
    'UDPViPNASHead',
]
