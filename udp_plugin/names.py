"""What is swapped for what: the one table of the components' names.

The names are those of MMPose's registries. ``convert`` writes them into a config, and
the demo, the tests and the benchmarks swap by them.
"""

from typing import Any, Dict, Optional

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
#: Heads of SimCC's vectors, and their codec.
VECTOR_HEADS = {
    'SimCCHead': 'UDPSimCCHead',
    'RTMCCHead': 'UDPRTMCCHead',
    'RTMWHead': 'UDPRTMWHead',
}
VECTOR_CODECS = {'SimCCLabel': 'UDPSimCCLabel'}
TRANSFORMS = {
    'TopdownAffine': 'TopDownAffineUDP',
    'GenerateTarget': 'OffsetTargetGenerator',
}
#: It dithers the flip test of kept weights, and maps back from rotated boxes.
ESTIMATORS = {'TopdownPoseEstimator': 'UDPTopdownPoseEstimator'}
#: The losses of Gaussian maps, which offset maps replace by ``UDPOffsetLoss``.
LOSSES = ('KeypointMSELoss', 'KeypointOHKMMSELoss')

#: The package of each component of ours.
PACKAGES = {
    **dict.fromkeys(CODECS.values(), 'udp_plugin.codecs'),
    **dict.fromkeys(VECTOR_CODECS.values(), 'udp_plugin.codecs'),
    **dict.fromkeys(HEADS.values(), 'udp_plugin.models.heads'),
    **dict.fromkeys(VECTOR_HEADS.values(), 'udp_plugin.models.heads'),
    **dict.fromkeys(ESTIMATORS.values(), 'udp_plugin.models.pose_estimators'),
    **dict.fromkeys(TRANSFORMS.values(), 'udp_plugin.datasets.transforms'),
    'UDPOffsetLoss': 'udp_plugin.models.losses',
    'UDPPoseHRNet': 'udp_plugin.models.backbones',
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


def kept_swaps() -> Dict[str, str]:
    """What each stock name is swapped for where weights are kept.

    Example:
        >>> kept_swaps()['HeatmapHead']
        'UDPHeatmapHead'
    """
    return {**HEADS, **ESTIMATORS}


def full_type_name(node: dict) -> str:
    """The name of a config's type, and before it its package.

    That is of a bare name the ``_scope_``, and MMPose where there is none.
    """
    name = node['type']
    if isinstance(name, type):
        name = f'{name.__module__}.{name.__name__}'
    return name if '.' in str(name) else f'{node.get("_scope_") or "mmpose"}.{name}'


def type_name(node: Any) -> Optional[str]:
    """The bare name of a config's type if it is MMPose's or this package's.

    Types of another package have none: they only happen to have the name.
    """
    if not isinstance(node, dict) or 'type' not in node:
        return None
    package, _, name = full_type_name(node).rpartition('.')
    return name if package.partition('.')[0] in ('mmpose', 'udp_plugin') else None
