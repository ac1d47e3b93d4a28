from .udp_topdown import UDPTopdownPoseEstimator

__all__ = ['UDPTopdownPoseEstimator']
