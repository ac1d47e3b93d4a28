from typing import Optional, Sequence, Tuple

from mmpose.registry import KEYPOINT_CODECS
from torch import Tensor

from udp_plugin import functional as F

from .base import Array, UDPCodec, sigma_of


@KEYPOINT_CODECS.register_module()
class UDPOffsetHeatmap(UDPCodec):
    """The paper's own codec: a disc and the offsets to its centre (Eq. 24-26, 29).

    Takes the arguments of ``UDPHeatmap`` (``heatmap_type='combined'``), of
    ``MSRAHeatmap`` or of ``MegviiHeatmap``, so that it stands in for each by name.

    Args:
        input_size: ``(width, height)`` of the network's input in pixels.
        heatmap_size: ``(W, H)`` of its output in pixels.
        sigma: Of the Gaussian that the disc replaces, heatmap px; gives
            ``R = 1.75 sigma`` where no radius is given. Defaults to a 32nd of the
            map's longer side: 2 at 48x64, 3 at 72x96.
        radius: ``R`` of the disc, heatmap px.
        reading: How the maps are read, see :func:`udp_plugin.functional.decode_offset`.
            ``'authors'`` is the paper's, Eq. 29 as the authors' code reads it: the
            offsets, blurred, at the peak. ``'toolbox'`` is MMPose 1.x's: unblurred.
            ``'voting'``, the most accurate on trained networks, is the mean of where
            the pixels around the peak point to.
        blur_kernel_size: Only for ``reading='toolbox'``: the classification map
            is blurred with ``2 * blur_kernel_size + 1`` px, as in ``UDPHeatmap``.
        radius_factor: ``UDPHeatmap``'s way to give R: ``R = radius_factor *
            max(W, H)``.
        kernel_size: ``MegviiHeatmap``'s way to give sigma: that of OpenCV's
            Gaussian of this size.
        heatmap_type: Only ``'combined'``; ``UDPHeatmap`` has it.
        unbiased: Only True; ``MSRAHeatmap`` has it.

    Raises:
        ValueError: An argument is of the wrong size or kind, or asks for another
            codec.

    Example:
        >>> codec = UDPOffsetHeatmap((192, 256), (48, 64), reading='authors')
        >>> keypoints, scores = codec.decode(torch.rand(3 * 17, 64, 48))
    """

    channels_per_keypoint = 3

    def __init__(
        self,
        input_size: Sequence[int],
        heatmap_size: Sequence[int],
        sigma: Optional[float] = None,
        radius: Optional[float] = None,
        reading: str = 'voting',
        blur_kernel_size: int = 11,
        radius_factor: Optional[float] = None,
        kernel_size: Optional[int] = None,
        heatmap_type: str = 'combined',
        unbiased: bool = True,
    ) -> None:
        super().__init__(input_size, heatmap_size, unbiased)
        if heatmap_type != 'combined':
            raise ValueError(
                f'heatmap_type={heatmap_type!r} is not an offset target; use '
                "UDPGaussianHeatmap for 'gaussian' ones"
            )
        if reading not in F.READINGS:
            raise ValueError(f'reading must be one of {F.READINGS}, got {reading!r}')
        if radius is not None and radius_factor is not None:
            raise ValueError(
                f'radius={radius!r} and radius_factor={radius_factor!r} both give '
                'the radius of the disc; give one of them'
            )
        longer_side = max(self.heatmap_size)
        if radius_factor is not None:
            radius = longer_side * F.check_positive(radius_factor, 'radius_factor')
        elif radius is None:
            sigma = sigma_of(sigma, kernel_size, default=longer_side / 32)
            radius = F.RADIUS_PER_SIGMA * sigma
        self.radius = F.check_positive(radius, 'radius')
        if self.radius**2 < 0.5:
            raise ValueError(
                f'the disc of a keypoint between pixels is empty at R = {self.radius} '
                'heatmap px; give a larger radius or sigma, or a larger heatmap_size'
            )
        self.reading = reading
        self.blur_kernel_size = F.check_kernel_size(
            blur_kernel_size, 'blur_kernel_size'
        )

    def target(self, keypoints: Array, visible: Array) -> Tuple[Array, Array]:
        """Eq. 24-26; see :func:`udp_plugin.functional.offset_target`."""
        return F.offset_target(keypoints, visible, self.heatmap_size, self.radius)

    def read(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """Eq. 29; see :func:`udp_plugin.functional.decode_offset`."""
        toolbox = self.reading == 'toolbox'
        kernel_size = 2 * self.blur_kernel_size + 1 if toolbox else None
        return F.decode_offset(maps, self.radius, self.reading, kernel_size)
