from .heads import UDPHeatmapHead
from .losses import UDPOffsetLoss
from .pose_estimators import UDPTopdownPoseEstimator

__all__ = ['UDPHeatmapHead', 'UDPOffsetLoss', 'UDPTopdownPoseEstimator']
