"""How the maps of a network that was trained with a stock codec are read.

Its weights are kept, so that they are still what they learnt: the biased measure, and
with most codecs targets that were rounded to whole heatmap pixels.
"""

from typing import Tuple

from mmpose.codecs import MegviiHeatmap, MSRAHeatmap, UDPHeatmap
from torch import Tensor

from udp_plugin import functional as F

# Modules, not their names: importing one of them may be what has imported MMPose, with
# which the heads are registered.
from . import udp_gaussian_heatmap, udp_offset_heatmap
from .base import Array, Distance, MapReading, check_size


class KeptReading(MapReading):
    """Reads Gaussians of the biased measure by DARK's step, and says how they flip.

    Args:
        codec: ``MSRAHeatmap`` or ``MegviiHeatmap``, as the toolbox builds it.

    Attributes:
        stock: The codec's name.
        blur_kernel_size: Of the blur before DARK's step, heatmap px.
        rounded: Whether targets were rounded to whole heatmap pixels.
        cells: Whether a keypoint is counted from its cell's corner (Megvii).
    """

    channels_per_keypoint = 1
    measure = F.PIXELS

    def __init__(self, codec) -> None:
        self.stock = type(codec).__name__
        self.input_size = check_size(codec.input_size, 'input_size', least=2)
        self.heatmap_size = check_size(codec.heatmap_size, 'heatmap_size', least=3)
        self.cells = isinstance(codec, MegviiHeatmap)
        self.rounded = not getattr(codec, 'unbiased', False)
        if self.cells:
            sigma = F.gaussian_kernel_sigma(F.check_kernel_size(codec.kernel_size))
        else:
            sigma = F.check_positive(codec.sigma, 'sigma')
        # MSRAHeatmap does not blur but with unbiased=True.
        self.blur_kernel_size = F.check_kernel_size(
            F.dark_kernel_size(sigma) if self.rounded else codec.blur_kernel_size,
            'blur_kernel_size',
        )

    def read(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """DARK's step; see :func:`udp_plugin.functional.decode_dark`.

        Scores are the stock codec's, and 0 where there is no peak.
        """
        keypoints, scores = F.decode_dark(maps, self.blur_kernel_size)
        if self.cells:
            scores = scores / 255 + 0.5 * (scores > 0)
        return keypoints, scores

    def to_input(self, points: Array) -> Array:
        """Eq. 32; see :func:`udp_plugin.functional.heatmap_to_input`."""
        corner = 0.5 if self.cells else 0.0
        sizes = self.input_size, self.heatmap_size
        return F.heatmap_to_input(points + corner, *sizes, unbiased=False)

    def to_toolbox(self, points: Array) -> Array:
        """The estimator is the exact inverse of the biased warp."""
        return points

    @property
    def dither(self) -> Distance:
        """See :func:`udp_plugin.functional.dither`; none without rounded targets."""
        sizes = self.input_size, self.heatmap_size
        return F.dither(*sizes) if self.rounded else (0.0, 0.0)

    def misalignment(self, moved: Distance) -> Distance:
        """Eq. 36; see :func:`udp_plugin.functional.flip_misalignment`."""
        widths = self.input_size[0], self.heatmap_size[0]
        apart = F.flip_misalignment(*widths, unbiased=False, cells=self.cells)
        s = F.stride(self.input_size, self.heatmap_size, unbiased=False)
        return float(apart - moved[0] / s[0]), float(moved[1] / s[1])


def reading_of(codec: object, name: str = 'codec') -> MapReading:
    """How the maps of a codec are read: one of this package reads them itself.

    ``UDPHeatmap`` has the unbiased measure, so that its maps are read as those of the
    codec that takes its place.

    Args:
        codec: As the toolbox's registry builds it.
        name: What an error calls it.

    Raises:
        ValueError: It is none of this package's and none of those that they replace, or
            its settings are not as they should be.
    """
    if isinstance(codec, MapReading):
        return codec
    # A subclass may have targets of its own.
    if type(codec) in (MSRAHeatmap, MegviiHeatmap):
        return KeptReading(codec)
    if type(codec) is not UDPHeatmap:
        raise ValueError(
            f'{name} must be UDPGaussianHeatmap or UDPOffsetHeatmap, or the stock '
            'MSRAHeatmap, MegviiHeatmap or UDPHeatmap with which weights were trained, '
            f'got {type(codec).__name__}'
        )
    sizes = codec.input_size, codec.heatmap_size
    if codec.heatmap_type == 'gaussian':
        gaussian = udp_gaussian_heatmap.UDPGaussianHeatmap
        return gaussian(*sizes, codec.sigma, codec.blur_kernel_size)
    offset = udp_offset_heatmap.UDPOffsetHeatmap
    return offset(*sizes, radius_factor=codec.radius_factor)
