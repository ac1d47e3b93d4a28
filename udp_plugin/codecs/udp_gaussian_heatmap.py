from typing import Optional, Sequence, Tuple

from mmpose.registry import KEYPOINT_CODECS
from torch import Tensor

from udp_plugin import functional as F

from .base import Array, UDPCodec, sigma_of


@KEYPOINT_CODECS.register_module()
class UDPGaussianHeatmap(UDPCodec):
    """The unbiased Gaussian: a sub-pixel centre, read by DARK's Newton step.

    Takes the arguments of ``UDPHeatmap`` (``heatmap_type='gaussian'``), of
    ``MSRAHeatmap`` or of ``MegviiHeatmap``, so that it stands in for each by name.

    Args:
        input_size: ``(width, height)`` of the network's input in pixels.
        heatmap_size: ``(W, H)`` of its output in pixels.
        sigma: Of the Gaussian, heatmap px. Defaults to 2.
        blur_kernel_size: Size in heatmap px of the blur before DARK's step, odd.
            Defaults to ``6 sigma - 1``: 11 for sigma 2, 17 for sigma 3.
        kernel_size: ``MegviiHeatmap``'s way to give sigma: that of OpenCV's
            Gaussian of this size.
        heatmap_type: Only ``'gaussian'``; ``UDPHeatmap`` has it.
        unbiased: Only True; ``MSRAHeatmap`` has it.
        radius_factor: Without effect, as in ``UDPHeatmap`` for Gaussians.

    Raises:
        ValueError: An argument is of the wrong size or kind, or asks for another
            codec.

    Example:
        >>> codec = UDPGaussianHeatmap((192, 256), (48, 64))
        >>> keypoints, scores = codec.decode(torch.rand(17, 64, 48))
    """

    channels_per_keypoint = 1

    def __init__(
        self,
        input_size: Sequence[int],
        heatmap_size: Sequence[int],
        sigma: Optional[float] = None,
        blur_kernel_size: Optional[int] = None,
        kernel_size: Optional[int] = None,
        heatmap_type: str = 'gaussian',
        unbiased: bool = True,
        radius_factor: Optional[float] = None,
    ) -> None:
        super().__init__(input_size, heatmap_size, unbiased)
        if heatmap_type != 'gaussian':
            raise ValueError(
                f'heatmap_type={heatmap_type!r} is not a Gaussian; use '
                "UDPOffsetHeatmap for 'combined' targets"
            )
        self.sigma = sigma_of(sigma, kernel_size, default=2.0)
        if blur_kernel_size is None:
            blur_kernel_size = F.dark_kernel_size(self.sigma)
        self.blur_kernel_size = F.check_kernel_size(
            blur_kernel_size, 'blur_kernel_size'
        )

    def target(self, keypoints: Array, visible: Array) -> Tuple[Array, Array]:
        """Eq. 17; see :func:`udp_plugin.functional.gaussian_target`."""
        return F.gaussian_target(keypoints, visible, self.heatmap_size, self.sigma)

    def read(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """DARK's step; see :func:`udp_plugin.functional.decode_dark`."""
        return F.decode_dark(maps, self.blur_kernel_size)
