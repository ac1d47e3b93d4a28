"""What is swapped for what: the one table of the components' names.

The names are those of MMPose's registries. ``convert`` writes them into a config, and
the demo, the tests and the benchmarks swap by them.
"""

from typing import Dict

#: UDP's codecs by the kind of their targets.
CODECS = {'gaussian': 'UDPGaussianHeatmap', 'offset': 'UDPOffsetHeatmap'}
#: The stock codecs for which either of them stands in.
STOCK_CODECS = ('MSRAHeatmap', 'MegviiHeatmap', 'UDPHeatmap')

HEADS = {
    'HeatmapHead': 'UDPHeatmapHead',
    'ViPNASHead': 'UDPViPNASHead',
    'CPMHead': 'UDPCPMHead',
    'MSPNHead': 'UDPMSPNHead',
}
TRANSFORMS = {
    'TopdownAffine': 'TopDownAffineUDP',
    'GenerateTarget': 'OffsetTargetGenerator',
}
#: Only data whose boxes are rotated at test time need this one.
ESTIMATORS = {'TopdownPoseEstimator': 'UDPTopdownPoseEstimator'}
#: The losses of Gaussian maps, which offset maps replace by ``UDPOffsetLoss``.
LOSSES = ('KeypointMSELoss', 'KeypointOHKMMSELoss')

#: The package of each component of ours.
PACKAGES = {
    **dict.fromkeys(CODECS.values(), 'udp_plugin.codecs'),
    **dict.fromkeys(HEADS.values(), 'udp_plugin.models.heads'),
    **dict.fromkeys(ESTIMATORS.values(), 'udp_plugin.models.pose_estimators'),
    **dict.fromkeys(TRANSFORMS.values(), 'udp_plugin.datasets.transforms'),
    'UDPOffsetLoss': 'udp_plugin.models.losses',
}


def swaps(codec: str) -> Dict[str, str]:
    """What each stock name is swapped for, with the codec of this kind.

    Args:
        codec: A key of :data:`CODECS`.

    Example:
        >>> swaps('offset')['MSRAHeatmap']
        'UDPOffsetHeatmap'
    """
    return {**dict.fromkeys(STOCK_CODECS, CODECS[codec]), **HEADS, **TRANSFORMS}
