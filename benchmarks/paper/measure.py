"""What the paper claims, measured: pipelines of the zoo around a perfect network.

Configs of the zoo, and what ``convert`` makes of them, get other input sizes and
strides, and the audit's functions measure them.
"""

from functools import lru_cache
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

import numpy as np
from mmengine.config import Config

from udp_plugin import functional as F
from udp_plugin.audit.measures import Transform
from udp_plugin.audit.run import Audit, audit
from udp_plugin.convert.run import read
from udp_plugin.convert.swaps import nodes, swap
from udp_plugin.convert.zoo import find_config

#: ``(width, height)`` in pixels.
Size = Tuple[int, int]

#: The four ways to use mirrored maps, with what they are called.
FLIPS = dict(
    alone='mirrored alone',
    shifted='mirrored, shifted',
    averaged='averaged',
    averaged_shifted='averaged, shifted',
)
#: The stride of the zoo, at which all but the flip test and the coding is measured.
STRIDE = 4


class Pipeline(NamedTuple):
    """A config of the zoo, and what is changed in it.

    Attributes:
        label: For people.
        color: In figures, of Okabe and Ito's.
        config: Its name in the zoo.
        codec: In the place of its codec's type.
        swapped: The codec with which ``convert`` swaps names, if it does.
        shift: ``shift_heatmap`` of its flip test; None leaves it.
        biased_warp: Whether its warps lose ``use_udp``.
    """

    label: str
    color: str
    config: str
    codec: str = ''
    swapped: str = ''
    shift: Optional[bool] = None
    biased_warp: bool = False


_NAME = 'td-hm_hrnet-w32_{}8xb64-210e_coco-256x192'
STOCK, STOCK_DARK, STOCK_UDP, STOCK_COMBINED = (
    _NAME.format(kind) for kind in ('', 'dark-', 'udp-', 'udp-regress-')
)
MSRA = Pipeline('MSRAHeatmap', '#D55E00', STOCK)
MEGVII = Pipeline('MegviiHeatmap', '#999999', STOCK, codec='MegviiHeatmap')
DARK = Pipeline('MSRAHeatmap (DARK)', '#CC79A7', STOCK_DARK)
GAUSSIAN = Pipeline('UDPHeatmap', '#56B4E9', STOCK_UDP)
COMBINED = Pipeline('UDPHeatmap (combined)', '#000000', STOCK_COMBINED)
OUR_GAUSSIAN = Pipeline('UDPGaussianHeatmap', '#0072B2', STOCK_UDP, swapped='gaussian')
OUR_OFFSET = Pipeline('UDPOffsetHeatmap', '#009E73', STOCK_COMBINED, swapped='offset')
UNSHIFTED = MSRA._replace(label='MSRAHeatmap (no shift)', shift=False)
DARK_UNSHIFTED = DARK._replace(label='MSRAHeatmap (DARK, no shift)', shift=False)
HALF = Pipeline('UDPHeatmap (biased warp)', '#E69F00', STOCK_UDP, biased_warp=True)

#: What is measured in each section.
FLIPPED = (MSRA, OUR_GAUSSIAN)
CODED = (MSRA, MEGVII, DARK, GAUSSIAN, COMBINED, OUR_GAUSSIAN, OUR_OFFSET)
WARPED = (MSRA, DARK_UNSHIFTED, GAUSSIAN, OUR_GAUSSIAN, HALF)
ENDED = (UNSHIFTED, MSRA, DARK_UNSHIFTED, DARK, HALF, *CODED[3:])


class Plan(NamedTuple):
    """How much is measured; sizes are those of the input in pixels."""

    input_size: Size = (192, 256)
    strides: Tuple[int, ...] = (2, 4, 8, 16)
    #: Of the flip test, besides: input size and stride.
    others: Tuple[Tuple[Size, int], ...] = (((96, 128), 4), ((96, 128), 8))
    #: End to end, the largest first.
    ends: Tuple[Size, ...] = ((192, 256), (144, 192), (96, 128), (72, 96), (48, 64))

    @property
    def flips(self) -> List[Tuple[Size, int]]:
        """Input size and stride of all flip tests."""
        return [*((self.input_size, stride) for stride in self.strides), *self.others]


FULL = Plan()


class Measured:
    """Audits of pipelines, each made when it is first asked for.

    Args:
        plan: How much is measured.
        ann: Annotations in COCO format to take people from; random people without.
        img: The images that they name.
    """

    def __init__(
        self, plan: Plan = FULL, ann: Optional[Path] = None, img: Optional[Path] = None
    ) -> None:
        self.plan, self.size = plan, plan.input_size
        self._audit = lru_cache(maxsize=None)(self._audit_once)
        self._people = ann, img

    @staticmethod
    def _audit_once(pipeline: Pipeline, size: Size, stride: int, *people) -> Audit:
        return audit(configure(pipeline, size, stride), *people)

    def random(self, pipeline: Pipeline) -> Audit:
        """Of a pipeline at the plan's size, with random people."""
        return self._audit(pipeline, self.size, STRIDE, None, None)

    def by_stride(self, pipeline: Pipeline) -> List[Audit]:
        """Of a pipeline at the plan's size and each of its strides."""
        return [self(pipeline, self.size, n) for n in self.plan.strides]

    def __call__(self, pipeline: Pipeline, size: Size, stride: int = STRIDE) -> Audit:
        """Of a pipeline at a size, with the people of the annotations."""
        return self._audit(pipeline, size, stride, *self._people)


def text_of(size: Size) -> str:
    """A size for people."""
    return '{}×{}'.format(*size)


def sigma_of(heatmap_size: Size) -> float:
    """Of the Gaussians, heatmap px: as in the zoo, but at least 1.

    A 32nd of the map's longer side, which is 2 at 48x64 and 3 at 72x96.
    """
    return max(max(heatmap_size) / 32, 1.0)


def configure(pipeline: Pipeline, input_size: Size, stride: int) -> Config:
    """The config of a pipeline at another size.

    Args:
        pipeline: What to take, and what to change in it.
        input_size: ``(width, height)`` in pixels.
        stride: The input's size by the map's.

    Raises:
        UserError: The zoo has no such config.
    """
    cfg = read(find_config(pipeline.config))
    for _, node in list(nodes(cfg)):
        if pipeline.biased_warp:
            node.pop('use_udp', None)
        if 'input_size' in node:
            node['input_size'] = input_size
        if 'heatmap_size' in node:
            node['heatmap_size'] = tuple(n // stride for n in input_size)
            node['type'] = pipeline.codec or node['type']
            _fit(node)
    if pipeline.shift is not None:
        cfg['model']['test_cfg']['shift_heatmap'] = pipeline.shift
    if pipeline.swapped:
        cfg, _ = swap(cfg, pipeline.swapped)
    return Config(cfg)


def _fit(codec: dict) -> None:
    """Fit a codec's sigma, or its disc, and DARK's blur to its map."""
    sigma = sigma_of(codec['heatmap_size'])
    codec.pop('sigma', None)
    if codec['type'] == 'MegviiHeatmap':
        # The size of OpenCV's Gaussian of this sigma.
        codec['kernel_size'] = 2 * round((sigma - 0.8) / 0.3 + 1) + 1
    elif codec.get('heatmap_type') == 'combined':
        radius = F.RADIUS_PER_SIGMA * sigma
        codec['radius_factor'] = radius / max(codec['heatmap_size'])
    else:
        codec['sigma'] = sigma
        if codec['type'] != 'MSRAHeatmap' or codec.get('unbiased'):
            codec['blur_kernel_size'] = F.dark_kernel_size(sigma)


# --- figures of an audit --------------------------------------------------------------


def flip_distance(audit: Audit, name: str) -> float:
    """How far maps are apart on the average, along x in input px."""
    return float(np.abs(getattr(audit.flip, name)[:, 0]).mean())


def near(audit: Audit, most: float) -> float:
    """The per cent of keypoints within a distance in input px."""
    return 100 * float(np.mean(np.hypot(*audit.end_to_end.input_px.T) <= most))


def warp_of(audit: Audit) -> Transform:
    """How the pipeline for tests warps."""
    (warp,) = (one for one in audit.transforms if one.flow is audit.parts.test)
    return warp


def along(audit: Audit, axis: int) -> Tuple[np.ndarray, np.ndarray]:
    """Where keypoints are along an axis, and their errors there, input px."""
    length = F.unit_length(audit.parts.input_size)[axis]
    persons = audit.end_to_end.persons
    places = [one.warped.keypoints[:, axis] for one in persons]
    errors = [
        (one.predicted - one.annotated)[:, axis] * length / one.warped.scale[axis]
        for one in persons
    ]
    return np.concatenate(places), np.concatenate(errors)


def at_bottom(audit: Audit) -> float:
    """The error along y at the input's lower edge, by a line through all, input px."""
    last = F.unit_length(audit.parts.input_size)[1]
    # Not −0.00.
    return round(np.polyval(np.polyfit(*along(audit, 1), 1), last), 2) or 0.0


def expected_end(pipeline: Pipeline, size: Size) -> Tuple[Optional[float], ...]:
    """The mean error of a perfect network on each axis, input px, if theory has it."""
    if pipeline == HALF:
        return None, None
    if pipeline.config == STOCK:
        # Along x, maps that are rounded at two places are averaged.
        return None, STRIDE / 4
    if pipeline.config != STOCK_DARK:
        return 0.0, 0.0
    shifted = pipeline.shift is not False
    distance = F.flip_misalignment(size[0], size[0] // STRIDE, False, shifted)
    return abs(distance) * STRIDE / 2, 0.0
