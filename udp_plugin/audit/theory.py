"""What the paper says of a pipeline; equations are those of arXiv:1911.07524v2."""

from typing import Dict, NamedTuple, Optional

from udp_plugin import functional as F

from .measures import Coding
from .parts import Parts
from .warps import CELLS, NEITHER, UNIT_LENGTH


class Expected(NamedTuple):
    """A value on each axis in input px, None where the paper has none."""

    x: Optional[float] = None
    y: Optional[float] = None
    equation: str = ''


def misalignment(parts: Parts, kind: str, shifted: bool = False) -> float:
    """Where a measure has mirrored maps, mirrored back, heatmap px to the right.

    By Eq. 36, 39 and 46; see :func:`udp_plugin.functional.flip_misalignment`.
    """
    widths, unbiased = (parts.input_size[0], parts.heatmap_size[0]), kind == UNIT_LENGTH
    return F.flip_misalignment(*widths, unbiased, shifted, cells=kind == CELLS)


def expected_flip(parts: Parts, coding: Coding) -> Dict[str, Expected]:
    """Mean distance of mirrored maps from direct ones, for each variant.

    By Eq. 36, 39 and 46. Where a keypoint is in the middle of its cell (Megvii), Eq. 36
    has ``1 / s`` instead.
    """
    kind, unbiased = coding.kind, coding.kind == UNIT_LENGTH
    pixel = parts.stride(unbiased)[0]
    found = {}
    for shifted in (False, True):
        distance = misalignment(parts, kind, shifted)
        equation = 'Eq. 46' if unbiased else 'Eq. 39' if shifted else 'Eq. 36'
        equation = 'as Eq. 36, cells' if kind == CELLS else equation
        distance = abs(float(distance * pixel))
        alone, averaged = Expected(distance, 0.0, equation), distance / 2
        if kind == NEITHER:
            alone, averaged = Expected(), None
        found['shifted' if shifted else 'alone'] = alone
        name = 'averaged_shifted' if shifted else 'averaged'
        found[name] = alone._replace(x=averaged)
    return found


def expected_coding(parts: Parts) -> Expected:
    """Mean error of coding a keypoint: a quarter of a pixel where it is rounded."""
    decoder = parts.head.decoder
    name = type(decoder).__name__
    if name == 'MegviiHeatmap' or (
        name == 'MSRAHeatmap' and not getattr(decoder, 'unbiased', False)
    ):
        x, y = parts.stride(unbiased=False) / 4
        return Expected(float(x), float(y), 'Eq. 17, 18')
    if name in ('MSRAHeatmap', 'UDPHeatmap', 'UDPGaussianHeatmap', 'UDPOffsetHeatmap'):
        equation = 'Eq. 24-26, 29' if parts.channels == 3 else 'DARK'
        return Expected(0.0, 0.0, equation)
    return Expected()
