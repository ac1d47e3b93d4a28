"""What the paper says of a pipeline; equations are those of arXiv:1911.07524v2."""

from typing import Any, Dict, NamedTuple, Optional

from udp_plugin import functional as F

from .measures import CELLS, NEITHER, UNIT_LENGTH, Coding
from .parts import Parts


class Expected(NamedTuple):
    """A value on each axis in input px, None where the paper has none."""

    x: Optional[float]
    y: Optional[float]
    equation: str = ''

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return dict(x=self.x, y=self.y, equation=self.equation)


def expected_flip(parts: Parts, coding: Coding) -> Dict[str, Expected]:
    """Mean distance of mirrored maps from direct ones, for each variant.

    By Eq. 36, 39 and 46. Where a keypoint is in the middle of its cell (Megvii), Eq. 36
    has ``1 / s`` instead.
    """
    if coding.kind == NEITHER:
        unknown = Expected(None, None)
        return dict.fromkeys(
            ('alone', 'shifted', 'averaged', 'averaged_shifted'), unknown
        )
    unbiased = coding.kind == UNIT_LENGTH
    pixel = F.stride(parts.input_size, parts.heatmap_size, unbiased)[0]
    found = {}
    for shifted in (False, True):
        if coding.kind == CELLS:
            distance = 1 / pixel + shifted
            equation = 'as Eq. 36, cells'
        else:
            distance = F.flip_misalignment(
                parts.input_size[0], parts.heatmap_size[0], unbiased, shifted
            )
            equation = 'Eq. 46' if unbiased else 'Eq. 39' if shifted else 'Eq. 36'
        distance = abs(float(distance * pixel))
        name = '_shifted' if shifted else ''
        found[name[1:] or 'alone'] = Expected(distance, 0.0, equation)
        found[f'averaged{name}'] = Expected(distance / 2, 0.0, equation)
    return found


def expected_coding(parts: Parts) -> Expected:
    """Mean error of coding a keypoint: a quarter of a pixel where it is rounded."""
    decoder = parts.head.decoder
    name = type(decoder).__name__
    if name == 'MegviiHeatmap' or (
        name == 'MSRAHeatmap' and not getattr(decoder, 'unbiased', False)
    ):
        s = F.stride(parts.input_size, parts.heatmap_size, unbiased=False)
        return Expected(float(s[0] / 4), float(s[1] / 4), 'Eq. 17, 18')
    if name in ('MSRAHeatmap', 'UDPHeatmap', 'UDPGaussianHeatmap', 'UDPOffsetHeatmap'):
        if parts.channels == 3:
            return Expected(0.0, 0.0, 'Eq. 24-26, 29')
        return Expected(0.0, 0.0, 'DARK')
    return Expected(None, None)
