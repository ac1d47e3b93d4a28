"""What is measured on: sizes, codecs, and maps as a network gives them.

How the maps are made is told in ``bench.md.j2``, too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmpose.codecs import UDPHeatmap
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.codecs import UDPGaussianHeatmap, UDPOffsetHeatmap

#: Maps without a peak: the height on which the noise lies.
NOISES = {'noise': 0.0, 'noise on a plateau': 0.5}

HEIGHT, SECOND_HEIGHT, NOISE = 0.8, 0.6, 0.03
#: Share of the maps that have a second peak, and as many have none.
ODD = 1 / 20
#: Different maps of noise, from which each map is given one.
NOISE_MAPS = 256


class Size(NamedTuple):
    """A skeleton, the size of its maps, and batches of them.

    Attributes:
        keypoints: Their number.
        heatmap_size: Width and height in pixels, at stride 4.
        sigma: Of the Gaussian, heatmap px.
        batches: Of interest.
    """

    keypoints: int
    heatmap_size: Tuple[int, int]
    sigma: float
    batches: Sequence[int] = ()


SIZES = (
    Size(17, (48, 64), 2, (1, 64, 256)),
    Size(133, (72, 96), 3, (1, 16, 64)),
    Size(308, (192, 256), 6, (1, 4)),
)


@dataclass
class Setting:
    """Our codecs and the built-in one, and data of a size, always the same.

    Attributes:
        codec: ``'gaussian'`` or ``'offset'``.
        size: The skeleton and its maps.
        batch: Samples.
        device: Where the maps are.
        kind: Of the maps: ``'network'`` or a key of :data:`NOISES`.
        axis: What is varied, where it is only one thing; our default reading is all
            that is measured then.
        ours: Our codecs by the name of their reading, ``coder`` the default one.
        stock: The built-in codec, and ``stock_cfg`` its arguments.
    """

    codec: str
    size: Size
    batch: int
    device: str = 'cpu'
    kind: str = 'network'
    axis: Optional[str] = None

    def __post_init__(self) -> None:
        codec, size, batch = self.codec, self.size, self.batch
        self.rng = np.random.default_rng(0)
        (width, height), sigma = size.heatmap_size, size.sigma
        #: Of the network's input, at stride 4, and of the maps.
        self.sizes = (4 * width, 4 * height), size.heatmap_size
        if codec == 'gaussian':
            self.ours = {'DARK': UDPGaussianHeatmap(*self.sizes, sigma=sigma)}
            kinds = dict(sigma=sigma, blur_kernel_size=F.dark_kernel_size(sigma))
        else:
            self.ours = {
                reading: UDPOffsetHeatmap(*self.sizes, sigma=sigma, reading=reading)
                for reading in (F.READINGS if self.axis is None else F.READINGS[:1])
            }
            factor = F.RADIUS_PER_SIGMA * sigma / max(width, height)
            kinds = dict(heatmap_type='combined', radius_factor=factor)
        names = 'input_size', 'heatmap_size'
        self.stock_cfg = dict(zip(names, self.sizes), **kinds)
        self.stock = UDPHeatmap(**self.stock_cfg)
        self.coder = next(iter(self.ours.values()))
        channels = self.channels = self.coder.channels_per_keypoint
        #: Of the maps, (B, K * C, H, W).
        self.shape = batch, size.keypoints * channels, height, width
        self.label = (
            f'{codec} codec, {size.keypoints} keypoints, {width}×{height}, batch '
            f'{batch}' + f', {self.kind}' * (self.kind != 'network')
        )

    def points(self, *count: int) -> np.ndarray:
        """Keypoints anywhere on the map, heatmap px, float32 (*count, 2)."""
        high = F.unit_length(self.size.heatmap_size)
        return self.rng.uniform(0, high, (*count, 2)).astype(np.float32)

    @cached_property
    def drawn(self) -> Tuple[Tensor, Tensor]:
        """A target and maps as a network gives them."""
        count = self.batch, self.size.keypoints
        points = torch.from_numpy(self.points(*count))
        target, _ = self.coder.target(points, torch.ones(count))
        maps = (HEIGHT * target).unflatten(1, (self.size.keypoints, self.channels))

        # A second peak is another keypoint's.
        kind = torch.from_numpy(self.rng.random(count))[..., None, None, None]
        other = maps.roll(1, 1)
        other[:, :, 0] *= SECOND_HEIGHT / HEIGHT
        is_other = (kind < ODD) & (maps[:, :, :1] < other[:, :, :1])
        maps = torch.where(is_other, other, maps) * (kind <= 1 - ODD)

        noise = self.rng.standard_normal((NOISE_MAPS, *self.shape[2:]), np.float32)
        noise = np.stack([cv2.GaussianBlur(one, (5, 5), 0) for one in noise])
        noise = torch.from_numpy(NOISE / noise.std() * noise)
        for sample in maps.flatten(1, 2):
            chosen = self.rng.integers(NOISE_MAPS, size=len(sample))
            sample += noise[torch.from_numpy(chosen)]
        return target.to(self.device), maps.flatten(1, 2).to(self.device)

    @cached_property
    def maps(self) -> Tensor:
        """What is decoded."""
        if self.kind == 'network':
            return self.drawn[1]
        noise = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))
        return noise.mul_(NOISE).add_(NOISES[self.kind]).to(self.device)
