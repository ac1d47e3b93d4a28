"""Components that only the study's configs name."""

from typing import Optional, Tuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec


@KEYPOINT_CODECS.register_module()
class RoundedHeatmap(UDPCodec):
    """The biased codec on the unbiased measure: the paper's "transform alone".

    The target is a Gaussian at the nearest pixel (Eq. 17), read by argmax and a
    quarter pixel (Eq. 18), as ``MSRAHeatmap``; only sizes are unit lengths.
    """

    channels_per_keypoint = 1

    def __init__(self, input_size, heatmap_size, sigma: float) -> None:
        super().__init__(input_size, heatmap_size)
        self.sigma = F.check_positive(sigma, 'sigma')

    def target(self, keypoints: Tensor, visible: Tensor) -> Tuple[Tensor, Tensor]:
        """See :func:`udp_plugin.functional.gaussian_target`."""
        return F.gaussian_target(
            keypoints, visible, self.heatmap_size, self.sigma, unbiased=False
        )

    def read(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """See :func:`udp_plugin.functional.decode_argmax`."""
        return F.decode_argmax(maps)


@MODELS.register_module()
class TriedOffsetLoss(nn.Module):
    """The family from which the loss of offsets was chosen: means over the disc.

    Args:
        error: Of an offset: ``'squared'``, ``'smooth'`` or ``'absolute'``.
        weight: The offsets' part beside half the mean squared error of H.
        inner: Sigma, in R, of the Gaussian that weighs pixels; if None, all count
            alike.
    """

    ERRORS = {
        'squared': torch.square,
        'smooth': lambda e: torch.where(e.abs() < 1, e.square() / 2, e.abs() - 0.5),
        'absolute': torch.abs,
    }

    def __init__(self, error: str, weight: float, inner: Optional[float]) -> None:
        super().__init__()
        self.error, self.weight, self.inner = self.ERRORS[error], weight, inner

    def forward(self, output: Tensor, target: Tensor, target_weights: Tensor) -> Tensor:
        """See :class:`udp_plugin.UDPOffsetLoss`."""
        output, target = (maps.unflatten(1, (-1, 3)) for maps in (output, target))
        disc = target[:, :, 0]
        if self.inner is not None:
            distance = target[:, :, 1:].square().sum(2)
            disc = disc * torch.exp(-distance / (2 * self.inner**2))
        errors = (output - target) * target_weights[..., None, None, None]
        offsets = (self.error(errors[:, :, 1:]).sum(2) * disc).sum((-2, -1))
        offsets = offsets / disc.sum((-2, -1)).clamp(min=1e-6)
        return 0.5 * errors[:, :, 0].square().mean() + self.weight * offsets.mean()


@TRANSFORMS.register_module()
class Degrade(BaseTransform):
    """Spoil the network's input; its keypoints stay where they are.

    Required keys: ``img``, ``img_id`` and ``transformed_keypoints``. Modified keys:
    ``img``.

    Args:
        kind: One of :attr:`KINDS`.
    """

    KINDS = ('blur', 'noise', 'low resolution', 'occlusion')

    def __init__(self, kind: str) -> None:
        if kind not in self.KINDS:
            raise ValueError(f'kind must be one of {self.KINDS}, got {kind!r}')
        self.kind = kind

    def transform(self, results: dict) -> dict:
        """Spoil one sample, always in the same way."""
        image = results['img']
        kind = self.KINDS.index(self.kind)
        rng = np.random.default_rng([int(results['img_id']), kind])
        if self.kind == 'blur':
            image = cv2.GaussianBlur(image, (0, 0), 1.0)
        elif self.kind == 'noise':
            grain = rng.normal(0, 20, image.shape)
            image = np.clip(image + grain, 0, 255).astype(np.uint8)
        elif self.kind == 'low resolution':
            # Every other pixel and back, centres staying where they are.
            small = cv2.GaussianBlur(image, (0, 0), 0.8)[::2, ::2].copy()
            twice, border = np.diag([2.0, 2.0, 1.0])[:2], cv2.BORDER_REPLICATE
            size = image.shape[1::-1]
            image = cv2.warpAffine(small, twice, size, borderMode=border)
        else:
            image = image.copy()
            keypoints = results['transformed_keypoints'][0]
            # Grey rectangles, each about at a keypoint.
            for k in rng.integers(len(keypoints), size=3):
                center = keypoints[k] + rng.normal(0, 3, 2)
                half = rng.uniform(4, 8, 2)
                low, high = (center - half).astype(int), (center + half).astype(int)
                grey = tuple(map(int, rng.integers(90, 170, 3)))
                cv2.rectangle(image, low.tolist(), high.tolist(), grey, -1)
        results['img'] = image
        return results
