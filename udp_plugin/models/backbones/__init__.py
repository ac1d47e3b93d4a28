from .udp_pose_hrnet import UDPPoseHRNet

__all__ = ['UDPPoseHRNet']
