"""The tables of the page, by what the template calls them."""

from typing import Iterator, Optional, Tuple

import numpy as np

from udp_plugin import functional as F
from udp_plugin.audit.measures import UNIT_LENGTH, Flip
from udp_plugin.audit.run import Audit
from udp_plugin.audit.theory import expected_coding, expected_flip
from udp_plugin.ui import Table

from . import measure as m
from .measure import STRIDE, Measured, Pipeline, Size, text_of

#: The four ways to use mirrored maps, with what they are called.
FLIPS = dict(
    alone='mirrored alone',
    shifted='mirrored, shifted',
    averaged='averaged',
    averaged_shifted='averaged, shifted',
)
#: What OKS people have to reach, and distances that keypoints may have, input px.
STRICT, NEAR = (0.95, 0.99), (0.25, 1.0)


def make_tables(measured: Measured) -> Iterator[Tuple[str, Table]]:
    """All of them, in their order; each is measured when it is asked for."""
    plan = measured.plan
    yield 'flip', _flip(measured)
    yield 'coding', _coding(measured)
    yield 'strides', _strides(measured)
    yield 'transform', _transform(measured)
    # The first, the middle and the last.
    for place in sorted({0, len(plan.ends) // 2, len(plan.ends) - 1}):
        yield f'end_{place}', _end(measured, plan.ends[place])
    yield 'ceiling', _ceiling(measured)


def _px(value: float) -> str:
    """A distance, written so that little does not look like nothing."""
    return f'{value:.2f}' if value >= 0.005 or value == 0 else '< 0.005'


def _pair(value: float, theory: Optional[float]) -> str:
    return f'{value:.2f} / {"–" if theory is None else f"{theory:.2f}"}'


def _label(pipeline: Pipeline) -> str:
    """With the codec's name as code."""
    name, bracket, rest = pipeline.label.partition(' (')
    return f'`{name}`{bracket}{rest}'


def flip_distance(flip: Flip, name: str) -> float:
    """How far maps are apart on the average, along x in input px."""
    return float(np.abs(getattr(flip, name)[:, 0]).mean())


def _flip(measured: Measured) -> Table:
    plan, rows = measured.plan, []
    for pipeline in m.FLIPPED:
        measure = 'unbiased' if pipeline.swapped else 'biased'
        sizes = [(plan.input_size, stride) for stride in plan.strides]
        for size, stride in (*sizes, *plan.others):
            found = measured(pipeline, size, stride)
            expected = expected_flip(found.parts, found.coding)
            pairs = (
                _pair(flip_distance(found.flip, name), expected[name].x)
                for name in FLIPS
            )
            rows.append([f'{measure}, {text_of(size)}, stride {stride}', *pairs])
    title = 'Distance of the mirrored maps from the direct ones'
    return Table(title, ['', *FLIPS.values()], rows)


def _coding(measured: Measured) -> Table:
    size, rows = measured.plan.input_size, []
    for pipeline in m.CODED:
        found = measured(pipeline, size)
        expected = expected_coding(found.parts)
        errors, noisy = np.abs(found.coding.errors), np.abs(found.coding.noisy)
        border = np.abs(np.concatenate(found.coding.border))
        theory = '–' if expected.x is None else f'{expected.x:.2f}'
        spread = _px(np.percentile(errors, 95)), _px(errors.max())
        at_border = _px(border.mean()), _px(border.max())
        with_noise = _px(noisy.mean()), _px(np.percentile(noisy, 95))
        cells = _label(pipeline), _px(errors.mean()), theory, expected.equation
        rows.append([*cells, *spread, *at_border, *with_noise])
    header = ['codec', 'mean', 'theory', 'by', '95 %', 'max', 'border, mean']
    header += ['border, max', 'noise, mean', 'noise, 95 %']
    title = f'Encoding and decoding, {text_of(size)}, stride {STRIDE}'
    return Table(title, header, rows)


def _strides(measured: Measured) -> Table:
    plan, rows = measured.plan, []
    for pipeline in m.CODED:
        audits = measured.by_stride(pipeline)
        means = [np.abs(one.coding.errors).mean() for one in audits]
        noise = [_px(np.abs(one.coding.noisy).mean()) for one in audits]
        theory = [expected_coding(one.parts).x for one in audits]
        rows.append([_label(pipeline), *map(_pair, means, theory), *noise])
    names = [f'stride {stride}' for stride in plan.strides]
    title = f'Encoding and decoding, {text_of(plan.input_size)}, other strides'
    return Table(title, ['codec', *names, *(f'{name}, noise' for name in names)], rows)


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


def _transform(measured: Measured) -> Table:
    size = measured.plan.input_size
    last = F.unit_length(size)[1]
    rows = []
    for pipeline in m.WARPED:
        found = measured.random(pipeline)
        end, coding = found.end_to_end, found.coding
        (warp,) = (one for one in found.transforms if one.flow is found.parts.test)
        # What a reading in unit lengths makes of a place in pixels, and half of it.
        theory = 0.0 if warp.kind == coding.kind else last / size[1]
        at_bottom = np.polyval(np.polyfit(*along(found, 1), 1), last)
        cells = [
            f'{warp.kind} (Eq. {41 if warp.kind == UNIT_LENGTH else 30})',
            f'{coding.kind} (Eq. {43 if coding.kind == UNIT_LENGTH else 32})',
            f'{np.abs(warp.deviation).mean():.4f}',
            f'{np.nanmean(np.abs(warp.misfit)):.4f}',
            _pair(np.abs(end.round_trip).mean(), theory / 2),
            *map(_px, np.abs(end.input_px).mean(0)),
            # Not −0.00.
            _pair(round(at_bottom, 2) or 0.0, theory),
        ]
        rows.append([_label(pipeline), *cells])
    header = ['pipeline', 'warp', 'target', 'to its equation', 'image to keypoints']
    header += ['there and back', 'end to end, x', 'end to end, y', 'at the bottom']
    return Table(f'Transforms, {text_of(size)}, stride {STRIDE}', header, rows)


def expected_end(pipeline: Pipeline, size: Size) -> Tuple[Optional[float], ...]:
    """The mean error of a perfect network on each axis, input px, if theory has it."""
    if pipeline == m.HALF:
        return None, None
    if pipeline.config == m.STOCK:
        # Along x, maps that are rounded at two places are averaged.
        return None, STRIDE / 4
    if pipeline.config != m.STOCK_DARK:
        return 0.0, 0.0
    shifted = pipeline.shift is not False
    distance = F.flip_misalignment(size[0], size[0] // STRIDE, False, shifted)
    return abs(distance) * STRIDE / 2, 0.0


def near(audit: Audit, most: float) -> float:
    """The per cent of keypoints within a distance in input px."""
    return 100 * float(np.mean(np.hypot(*audit.end_to_end.input_px.T) <= most))


def _end(measured: Measured, size: Size) -> Table:
    rows = []
    for pipeline in m.ENDED:
        found = measured(pipeline, size)
        end = found.end_to_end
        errors = np.abs(end.input_px).mean(0)
        shares = [100 * np.mean(end.oks >= least) for least in STRICT]
        shares += [near(found, most) for most in NEAR]
        pairs = map(_pair, errors, expected_end(pipeline, size))
        ap = f'{end.oks.mean():.4f}', f'{found.ap:.1f}'
        rows.append([_label(pipeline), *pairs, *ap, *map('{:.0f}'.format, shares)])
    header = ['pipeline', 'error x', 'error y', 'mean OKS', 'COCO AP']
    header += [f'OKS ≥ {least:g}' for least in STRICT]
    header += [f'within {most:g} px' for most in NEAR]
    return Table(f'End to end, {text_of(size)}, stride {STRIDE}', header, rows)


def _ceiling(measured: Measured) -> Table:
    sizes, rows = measured.plan.ends, []
    for pipeline in m.ENDED:
        aps = [f'{measured(pipeline, size).ap:.1f}' for size in sizes]
        rows.append([_label(pipeline), *aps])
    header = ['pipeline', *map(text_of, sizes)]
    return Table('COCO AP of a perfect network', header, rows)
