"""What is said of anybody's maps: distances, the measure that they tell, what to do."""

import math
from itertools import product
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from udp_plugin import functional as F
from udp_plugin.ui import Table

from .errors import by_axis

#: Strides that networks have, if the input's size is not known.
STRIDES = (2, 4, 8)
#: Fewer maps than these say nothing about a mean of rounded places.
FEW = 20
#: A mean that is farther from theory than this is not explained by it, heatmap px.
TOLERANCE = 0.1
#: What is said of distances along an axis. Rounded places leave the signed mean as
#: theory has it, although each single distance is of whole pixels.
COLUMNS = {
    'signed_mean': 'signed mean',
    'mean': 'mean',
    'median': 'median',
    'p95': '95 %',
    'max': 'max',
}
#: What may be done with the mirrored maps: by key, its name, and what it makes of a
#: distance (x, y): ``factor * (distance + shift)``.
VARIANTS = {
    'alone': ('mirrored alone', 1.0, (0.0, 0.0)),
    'shifted': ('mirrored, shifted', 1.0, (1.0, 0.0)),
    'averaged': ('averaged', 0.5, (0.0, 0.0)),
    'averaged_shifted': ('averaged, shifted', 0.5, (1.0, 0.0)),
}
#: By kind, the equation of the mean distance on x, and what it means and what to do.
MEASURES = {
    'unbiased': (
        'Eq. 46',
        'unbiased (Eq. 46: 0). Average the maps as they are; a shift by one pixel '
        'would put them a heatmap pixel apart.',
    ),
    'biased': (
        'Eq. 36',
        'measured in pixels (Eq. 36: {value}). A shift by one pixel leaves {left:.3f}; '
        'measure by unit lengths (UDP) instead.',
    ),
    'unbiased_shifted': (
        'Eq. 46, shifted',
        'as unbiased maps (Eq. 46: 0) after a shift by one pixel. Switch the shift '
        'off.',
    ),
    'biased_shifted': (
        'Eq. 39',
        'measured in pixels and already shifted by one pixel (Eq. 39: {value}), or in '
        'cells, with a keypoint in the middle of its own (Megvii). Do not shift again; '
        'measure by unit lengths (UDP) instead.',
    ),
}


class Verdict(NamedTuple):
    """What the mean distance on the x axis says of the measure.

    Its kind is one of :data:`MEASURES`, ``'other'`` (theory explains none such) or
    ``'undecided'`` (too few maps to tell).
    """

    kind: str
    theory_heatmap_px: float  #: The nearest value of theory.
    equation: str  #: Where that is from.
    text: str  #: What it means and what to do, in a sentence or two.


class MapsAudit(NamedTuple):
    """How far flipped-back mirrored maps lie from direct ones."""

    #: Shape (M, 2), x and y in heatmap px, of the maps that counted: how much farther
    #: to the right (and lower) the peak is in the mirrored map than in the direct one.
    #: The sign is that of :func:`~udp_plugin.functional.flip_misalignment`.
    shifts: np.ndarray
    maps_given: int  #: ``N * K``.
    maps_apart: int  #: Of clear peaks in both maps, those at different places.
    heatmap_size: Tuple[int, int]  #: ``(W, H)`` in pixels.
    flip_indices: Tuple[int, ...]  #: For each keypoint its counterpart's index.
    inferred: bool  #: Whether ``flip_indices`` were inferred from the maps.
    input_size: Optional[Sequence[int]] = None  #: ``(width, height)``, if known.

    @property
    def maps_counted(self) -> int:
        """How many maps the shifts are of."""
        return len(self.shifts)

    @property
    def has_errors(self) -> bool:
        """Whether a shift that does not belong there, or nothing, explains them."""
        return self.verdict.kind in ('unbiased_shifted', 'other')

    @property
    def verdict(self) -> Verdict:
        """Which value of theory the mean distance on the x axis is nearest to.

        Usual strides are tried if the input's size is not known.
        """
        (mean, vertical), scatter = self.shifts.mean(0), self.shifts.std(0)
        error, vertical_error = scatter / math.sqrt(len(self.shifts))
        width = self.heatmap_size[0]
        strides: Sequence[float] = STRIDES
        if self.input_size is not None:
            strides = [self.input_size[0] / width]
        # Kind, mean distance in heatmap px, and stride of what the paper has.
        theories = []
        for name, stride in product(MEASURES, strides):
            measure = name.startswith('unbiased'), name.endswith('shifted')
            distance = F.flip_misalignment(stride * width, width, *measure)
            theories.append((name, distance, stride))
        kind, theory, stride = min(theories, key=lambda one: abs(mean - one[1]))
        # Other strides of the same kind would lead to the same advice; and at stride 1
        # the two measures do not differ.
        others = [v for name, v, _ in theories if name != kind and v != theory]
        distance = abs(mean - theory)
        margin = min(abs(mean - value) for value in others) - distance
        equation, advice = MEASURES[kind]
        text, value = f'On average {_signed(mean)} heatmap px on the x axis', theory
        nearest = f'{_signed(theory)}, {equation}'
        few = len(self.shifts) < FEW
        if not few and distance > max(TOLERANCE, 3 * error):
            kind = 'other'
            text += (
                f', which no measure explains (nearest: {nearest}): see that '
                'mirrored is the output for the mirrored input itself, not shifted or '
                'resized.'
            )
        elif few or margin < 4 * error:
            kind = 'undecided'
            text += (
                f' (standard error {error:.3f}), nearest to {nearest}, but '
                f'{len(self.shifts)} maps are too few to tell: give more images.'
            )
        else:
            sure = '' if self.input_size is not None else 'probably '
            value = f'{_signed(theory)}, {sure}stride {stride:g}'
            text += ': ' + advice.format(value=value, left=1 / stride)
        if abs(vertical) > max(TOLERANCE, 3 * vertical_error):
            text += (
                f' On the y axis mirroring should change nothing, but they are '
                f'{_signed(vertical)} heatmap px apart.'
            )
        return Verdict(kind, theory, equation, text)

    def _pixel(self) -> Tuple[float, float]:
        """Input px per heatmap px, by the measure that the maps have, or by Eq. 43."""
        unbiased = not self.verdict.kind.startswith('biased')
        x, y = F.stride(self.input_size, self.heatmap_size, unbiased)
        return float(x), float(y)

    def _variants(self, pixel: Sequence[float] = (1.0, 1.0)) -> Dict[str, dict]:
        """Statistics by what is done with the mirrored maps, and by axis.

        Args:
            pixel: A heatmap pixel's width and height in the wanted px.
        """
        found: Dict[str, dict] = {}
        for name, (_, factor, shift) in VARIANTS.items():
            axes = by_axis(*(factor * (self.shifts + shift) * pixel).T).items()
            found[name] = {k: {c: one[c] for c in COLUMNS} for k, one in axes}
        return found

    def as_dict(self) -> Dict[str, Any]:
        """What was measured, for JSON.

        ``flip_alignment_heatmap_px``, and ``flip_alignment_px`` in input px if the
        input's size is known, have statistics by variant and axis.
        """
        found: Dict[str, Any] = dict(flip_alignment_heatmap_px=self._variants())
        if self.input_size is not None:
            found['flip_alignment_px'] = self._variants(self._pixel())
        return dict(
            found,
            flip_indices=list(self.flip_indices),
            flip_indices_inferred=self.inferred,
            heatmap_size=list(self.heatmap_size),
            maps_given=self.maps_given,
            maps_counted=self.maps_counted,
            maps_apart=self.maps_apart,
            verdict=self.verdict._asdict(),
        )

    def tables(self) -> List[Table]:
        """What was measured, for reading.

        A table in heatmap px, whose text is the verdict; one in input px, if the
        input's size is known; and one of what was measured.
        """
        found = [_table('heatmap px', self._variants(), self.verdict.text)]
        if self.input_size is not None:
            pixel = self._pixel()
            text = f'A heatmap pixel is {pixel[0]:.4g} × {pixel[1]:.4g} input px.'
            found.append(_table('input px', self._variants(pixel), text))
        width, height = self.heatmap_size
        inferred = ', inferred' if self.inferred else ''
        rows = [
            ['maps counted', f'{self.maps_counted} of {self.maps_given}'],
            ['peaks at different places', f'{self.maps_apart}'],
            ['heatmap', f'{width}×{height}'],
            [f'flip_indices{inferred}', ', '.join(map(str, self.flip_indices))],
        ]
        return [*found, Table('What was measured', ['', ''], rows)]


def _table(unit: str, variants: Dict[str, dict], text: str) -> Table:
    rows = []
    for axis, name in product('xy', variants):
        signed, *sizes = variants[name][axis].values()
        cells = [f'{axis}: {VARIANTS[name][0]}', _signed(signed)]
        rows.append([*cells, *(f'{size:.3f}' for size in sizes)])
    title = f'Mirrored maps, flipped back, from direct ones: {unit}'
    return Table(title, ['', *COLUMNS.values()], rows, text)


def _signed(value: float) -> str:
    """As -0.750, and 0.000 without a sign."""
    rounded = round(value, 3)
    return f'{rounded:+.3f}' if rounded else '0.000'
