"""Unbiased data processing (UDP) for MMPose 1.x.

Importing the package registers its components with MMPose, where that is
installed; :mod:`udp_plugin.functional` works without it.
"""

from importlib.util import find_spec

from .version import __version__

if find_spec('mmpose') is not None:
    from .codecs import UDPGaussianHeatmap, UDPOffsetHeatmap
    from .datasets import OffsetTargetGenerator, TopDownAffineUDP
    from .models import (
        UDPCPMHead,
        UDPHeatmapHead,
        UDPMSPNHead,
        UDPOffsetLoss,
        UDPTopdownPoseEstimator,
        UDPViPNASHead,
    )

    __all__ = [
        'OffsetTargetGenerator',
        'TopDownAffineUDP',
        'UDPCPMHead',
        'UDPGaussianHeatmap',
        'UDPHeatmapHead',
        'UDPMSPNHead',
        'UDPOffsetHeatmap',
        'UDPOffsetLoss',
        'UDPTopdownPoseEstimator',
        'UDPViPNASHead',
        '__version__',
    ]
else:
    __all__ = ['__version__']
