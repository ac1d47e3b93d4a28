"""What does not go together in a config: each mismatch by name, with line and fix."""

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec
from udp_plugin.models.heads.base import OFFSET_LOSSES, UDPHead, type_name

from .lines import Lines
from .measures import (
    CELLS,
    IMAGE_SIZE,
    NEITHER,
    PIXELS,
    UNIT_LENGTH,
    Coding,
    EndToEnd,
    Flip,
    Transform,
)
from .parts import Flow, Parts, build_codec, replaced
from .theory import expected_coding

ERROR = 'error'
WARNING = 'warning'

#: Smaller than this (input px), a difference is not worth a word.
TOLERANCE = 0.05
#: What a codec has that target and reading must agree on.
CODEC_SETTINGS = (
    'input_size',
    'heatmap_size',
    'heatmap_type',
    'unbiased',
    'kernel_size',
    'sigma',
    'radius',
    'radius_factor',
)
#: A DARK kernel that is so many times too wide or too narrow does not fit sigma.
KERNEL_FACTOR = 2.0


class Finding(NamedTuple):
    """A mismatch in a config.

    Attributes:
        severity: ``'error'``: parts contradict each other, which costs accuracy or
            fails; ``'warning'``: it works, but not as well as it might.
        name: Stable, e.g. ``'flip-shift'``.
        where: Dotted place in the config.
        line: ``file:line: text``, or empty if it stands in no file.
        what: What is wrong, with the figure that was measured.
        fix: What to do.
    """

    severity: str
    name: str
    where: str
    line: str
    what: str
    fix: str


class Measured(NamedTuple):
    """All that findings are made of; what could not be measured is None."""

    cfg: Config
    parts: Parts
    transforms: List[Transform]
    coding: Coding
    flip: Optional[Flip]
    #: Why the flip test fails.
    flip_failure: str
    end_to_end: Optional[EndToEnd]
    #: Why predicting fails.
    failure: str
    lines: Lines


def find(measured: Measured) -> List[Finding]:
    """All findings, errors first."""
    found = [finding for check in CHECKS for finding in check(measured)]
    if measured.failure and not any(f.severity == ERROR for f in found):
        found.append(
            Finding(
                ERROR,
                'prediction',
                'model',
                '',
                measured.failure,
                'what the message says; tools/test.py fails in the same way',
            )
        )
    return sorted(found, key=lambda finding: finding.severity != ERROR)


def _mean(errors: np.ndarray) -> float:
    """Mean absolute error on the worse axis."""
    return float(np.abs(errors).mean(0).max())


def _inside(flow: Flow) -> List[str]:
    """Parts of the names of variables that have a flow's settings."""
    if 'stage 2' in flow.name:
        return ['stage2', 'hooks', 'switch']
    if flow.training:
        return ['train']
    return ['test'] if flow.name == 'test' else ['val', 'test']


def _warp_step(flow: Flow) -> Optional[int]:
    """The index of the warp, by what warps have or are called."""
    found = flow.find('input_size')
    if found is not None:
        return found
    names = [str(type_name(step) or step.get('type')) for step in flow.steps]
    return next((i for i, name in enumerate(names) if 'Affine' in name), None)


def _line_of_codec(m: Measured) -> str:
    return m.lines.find('type', type(m.parts.head.decoder).__name__)


def _place(flow: Flow, index: Optional[int]) -> str:
    return flow.places[index] if index is not None else flow.name


# --- the checks -----------------------------------------------------------------------


def _warps(m: Measured) -> Iterator[Finding]:
    """Each warp measures the input as the codec measures the map."""
    wanted = _measure_of(m)
    if m.coding.kind == NEITHER or _other_codec(m):
        return
    warps = [t for t in m.transforms if t.kind != NEITHER]
    wrong = [t for t in warps if t.kind != wanted]
    if wrong and len(wrong) == len(warps):
        off = m.end_to_end and _mean(m.end_to_end.round_trip)
        codec = type(m.parts.head.decoder).__name__
        if wanted == UNIT_LENGTH:
            fix = 'use_udp=True in every TopdownAffine, or TopDownAffineUDP'
            name = _line_of_warp(m.lines, wrong[0].flow)
        else:
            fix = (
                'UDPHeatmap, UDPGaussianHeatmap or UDPOffsetHeatmap as the codec of '
                'head and target'
            )
            name = m.lines.find('type', codec)
        yield Finding(
            ERROR,
            'half-enabled',
            _place(wrong[0].flow, _warp_step(wrong[0].flow)),
            name,
            f'all warps measure the input by its {wrong[0].kind}, the codec '
            f'({codec}) the map by its {wanted}'
            + (f': keypoints come back {off:.2f} px off, on average' if off else ''),
            fix,
        )
        return
    for transform in wrong:
        flow = transform.flow
        step = flow.steps[_warp_step(flow) or 0]
        training = flow.training
        off = m.end_to_end and _mean(m.end_to_end.round_trip)
        if training:
            effect = 'the network is trained on other images than it is tested on'
        elif flow is m.parts.test and off:
            effect = f'keypoints come back {off:.2f} px off, on average'
        else:
            effect = 'keypoints come back up to a pixel off'
        yield Finding(
            WARNING if training else ERROR,
            'warp-differs',
            _place(flow, _warp_step(flow)),
            _line_of_warp(m.lines, flow),
            f'the {flow.name} pipeline measures the input by its {transform.kind}, '
            f'the others and the codec by its {wanted}: {effect}',
            _fix_of_warp(step, wanted),
        )


def _fix_of_warp(step: dict, wanted: str) -> str:
    if wanted == UNIT_LENGTH:
        return f'use_udp=True in {type_name(step)}, or TopDownAffineUDP'
    return 'without use_udp=True (TopdownAffine)'


def _line_of_warp(lines: Lines, flow: Flow) -> str:
    index = _warp_step(flow)
    if index is None:
        return ''
    name = type_name(flow.steps[index])
    return lines.find('type', name, _inside(flow)) or lines.find('type', name)


def _equations(m: Measured) -> Iterator[Finding]:
    """Each warp follows Eq. 41 or Eq. 30, and takes image and keypoints along."""
    for transform in m.transforms:
        flow = transform.flow
        place = _place(flow, _warp_step(flow))
        line = _line_of_warp(m.lines, flow)
        off = float(np.abs(transform.deviation).max())
        if off > TOLERANCE:
            equation = 'Eq. 41' if transform.kind == UNIT_LENGTH else 'Eq. 30'
            yield Finding(
                ERROR,
                'warp-equation',
                place,
                line,
                f'the {flow.name} pipeline warps keypoints up to {off:.2f} px off '
                f'{equation}, by the box that it hands on (input_center, input_scale)',
                'TopDownAffineUDP',
            )
        found = np.isfinite(transform.misfit).all(-1)
        if len(found) and found.mean() < 0.5:
            yield Finding(
                ERROR,
                'image-and-keypoints',
                place,
                line,
                f'the images of the {flow.name} pipeline do not show what is at the '
                'keypoints',
                'TopDownAffineUDP, which warps both by one matrix',
            )
            continue
        means = np.abs(transform.misfit[found].mean(0)) if found.any() else np.zeros(2)
        if means.max() > TOLERANCE:
            x, y = transform.misfit[found].mean(0)
            yield Finding(
                ERROR,
                'image-and-keypoints',
                place,
                line,
                f'the {flow.name} pipeline warps the image ({x:+.2f}, {y:+.2f}) px off '
                'the keypoints, on average',
                'TopDownAffineUDP, which warps both by one matrix',
            )


def _sizes(m: Measured) -> Iterator[Finding]:
    """The warps make inputs of the size that the codec has."""
    sizes = {transform.input_size for transform in m.transforms}
    if len(sizes) == 1 and sizes != {m.parts.input_size}:
        (size,) = sizes
        yield Finding(
            ERROR,
            'input-size',
            'model.head.decoder.input_size',
            m.lines.find('input_size', m.parts.input_size),
            f'all pipelines make inputs of {_size(size)}, the codec is for '
            f'{_size(m.parts.input_size)}',
            f'input_size={size}',
        )
        return
    for transform in m.transforms:
        if transform.input_size != m.parts.input_size:
            flow = transform.flow
            index = _warp_step(flow)
            yield Finding(
                ERROR,
                'input-size',
                f'{_place(flow, index)}.input_size',
                m.lines.find('input_size', transform.input_size, _inside(flow))
                or _line_of_warp(m.lines, flow),
                f'the {flow.name} pipeline makes inputs of '
                f'{_size(transform.input_size)}, the codec is for '
                f'{_size(m.parts.input_size)}',
                f'input_size={m.parts.input_size}',
            )


def _size(size: Sequence[int]) -> str:
    return '×'.join(map(str, size))


def _codecs(m: Measured) -> Iterator[Finding]:
    """Targets are made by the codec that reads them."""
    for transform in m.transforms:
        if transform.flow.training:
            yield from _codec_of(m, transform.flow)


def _codec_of(m: Measured, flow: Flow) -> Iterator[Finding]:
    index = flow.find('encoder')
    if index is None:
        return
    encoder = flow.steps[index]['encoder']
    if isinstance(encoder, (list, tuple)):
        levels = getattr(m.parts.head, 'level_indices', None)
        encoder = encoder[levels[-1] if levels else -1]
    made, read = build_codec(encoder), m.parts.head.decoder
    if made is None:
        return
    place = f'{_place(flow, index)}.encoder'
    fix = 'the same codec for the target (encoder) and the head (decoder)'
    off = _mean(m.coding.errors)
    if type(made) is not type(read):
        # What has been measured is the target of the first flow.
        if flow is m.parts.train and _reads_what_was_coded(m):
            return
        names = f'{type(made).__name__} and read by {type(read).__name__}'
        line = m.lines.find('type', type_name(encoder))
        what = f'targets of the {flow.name} pipeline are made by {names}'
        yield Finding(ERROR, 'codec-differs', place, line, what, fix)
        return
    for key in CODEC_SETTINGS:
        ours, theirs = (_plain(getattr(codec, key, None)) for codec in (made, read))
        if ours == theirs:
            continue
        measured = flow is m.parts.train and off > TOLERANCE
        matters = key != 'sigma' or measured
        yield Finding(
            ERROR if matters else WARNING,
            'codec-differs',
            f'{place}.{key}',
            m.lines.find(key, ours) or m.lines.find(key, theirs),
            f'targets of the {flow.name} pipeline are made with {key}={ours} and read '
            f'with {key}={theirs}'
            + (f': {off:.2f} px off, on average' if measured else ''),
            fix,
        )
        # What follows from it differs, too.
        return


def _reads_what_was_coded(m: Measured) -> bool:
    """Whether both have one measure, and perfect maps are read as well as can be."""
    return (
        m.coding.answer == _measure_of(m)
        and _mean(m.coding.errors) <= 1.1 * _expected(m) + TOLERANCE
    )


def _measure_of(m: Measured) -> str:
    """How everything has to measure that goes with the target."""
    kind = m.coding.kind
    return PIXELS if kind == CELLS else kind


def _expected(m: Measured) -> float:
    """Mean error of coding on the worse axis, by theory; 0 where there is none."""
    expected = expected_coding(m.parts)
    return max(expected.x or 0.0, expected.y or 0.0)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _answers(m: Measured) -> Iterator[Finding]:
    """What is read and mapped back is what was coded."""
    if any(f.name == 'codec-differs' and f.severity == ERROR for f in _codecs(m)):
        return
    decoder = type(m.parts.head.decoder).__name__
    place, line = 'model.head.decoder', _line_of_codec(m)
    wanted = _measure_of(m)
    if NEITHER in (m.coding.kind, m.coding.answer):
        yield Finding(
            ERROR,
            'coding',
            place,
            line,
            f'{decoder} does not read what was coded, by whichever measure',
            'UDPGaussianHeatmap or UDPOffsetHeatmap',
        )
    elif m.coding.answer != wanted:
        yield Finding(
            ERROR,
            'coding',
            place,
            line,
            f'{decoder} measures the map by its {wanted} where keypoints are coded, '
            f'and by its {m.coding.answer} where they are read',
            'UDPGaussianHeatmap or UDPOffsetHeatmap',
        )
    else:
        off, limit = _mean(m.coding.errors), _expected(m)
        x, y = m.coding.errors.mean(0)
        if max(abs(x), abs(y)) > TOLERANCE:
            yield Finding(
                ERROR,
                'coding',
                place,
                line,
                f'{decoder} reads perfect maps ({x:+.2f}, {y:+.2f}) px off, on average',
                'UDPGaussianHeatmap or UDPOffsetHeatmap',
            )
            return
        known = expected_coding(m.parts).x is not None
        if known and not _reads_what_was_coded(m):
            yield Finding(
                WARNING,
                'coding',
                place,
                line,
                f'{decoder} reads perfect maps {off:.2f} px off, on average, where '
                f'{limit:.2f} px can be expected',
                'the settings with which the codec comes, or another reading',
            )


def _back(m: Measured) -> Iterator[Finding]:
    """The estimator maps back by the inverse of the warp."""
    if m.end_to_end is None:
        return
    off = _mean(m.end_to_end.round_trip)
    explained = any(
        finding.severity == ERROR
        for check in (_warps, _equations, _sizes, _codecs, _answers, _random)
        for finding in check(m)
    )
    if off > TOLERANCE and not explained:
        name = type(m.parts.model).__name__
        yield Finding(
            ERROR,
            'mapping-back',
            'model.type',
            m.lines.find('type', name, ['model']),
            f'{name} maps keypoints back to the source {off:.2f} px off the inverse '
            'of the warp, on average',
            'TopdownPoseEstimator, or UDPTopdownPoseEstimator for rotated boxes',
        )


def _other_codec(m: Measured) -> bool:
    """Whether target and head have codecs of two kinds, to be mended first."""
    return any(finding.where.endswith('.encoder') for finding in _codecs(m))


def _flips(m: Measured) -> Iterator[Finding]:
    """The flip test lays mirrored maps where they belong."""
    warps = {transform.kind for transform in m.transforms}
    if _other_codec(m) or (m.coding.kind != UNIT_LENGTH and warps == {UNIT_LENGTH}):
        # With the codec that is right, the flip test will be another.
        return
    test_cfg = m.parts.model.test_cfg
    mode = test_cfg.get('flip_mode', 'heatmap')
    right = 'udp_combined' if m.parts.channels == 3 else 'heatmap'
    where = 'model.test_cfg'
    ours = isinstance(m.parts.head, UDPHead)
    if m.flip_failure:
        if mode != right and not ours:
            yield _flip_mode(m, mode, right, f'the flip test fails: {m.flip_failure}')
        else:
            yield Finding(
                ERROR,
                'flip-fails',
                where,
                m.lines.find('flip_test', True),
                f'the flip test fails: {m.flip_failure}',
                "maps for each keypoint of the data's flip_indices, or flip_test=False",
            )
        return
    if m.flip is None or m.flip.configured is None:
        return
    if mode != right and not ours:
        off = _mean(m.flip.configured)
        said = f'mirrored maps are joined {off:.2f} px off, on average'
        yield _flip_mode(m, mode, right, said)
        return
    means = {
        shifted: np.abs(maps).mean(0)
        for shifted, maps in (
            (False, m.flip.averaged),
            (True, m.flip.averaged_shifted),
        )
    }
    best = min(means, key=lambda shifted: means[shifted].max())
    found = np.abs(m.flip.configured).mean(0)
    if not np.isfinite(found).all():
        found = np.full(2, np.inf)
    if found.max() <= means[best].max() + TOLERANCE:
        return
    if np.abs(found - means[not best]).max() < TOLERANCE + 0.01 * found.max():
        yield Finding(
            ERROR,
            'flip-shift',
            f'{where}.shift_heatmap',
            m.lines.find('shift_heatmap', not best) or m.lines.find('flip_test', True),
            f'the flip test is {found[0]:.2f} px off, and would be '
            f'{means[best][0]:.2f} px {"with" if best else "without"} the shift',
            f'shift_heatmap={best}',
        )
    else:
        yield Finding(
            ERROR,
            'flip-maps',
            where,
            m.lines.find('flip_mode') or m.lines.find('flip_test', True),
            f'the flip test is ({found[0]:.2f}, {found[1]:.2f}) px off, as no shift '
            'explains: channels, signs or keypoints are swapped wrongly',
            f'flip_mode={right!r}, and the swaps of the data set as they are mirrored',
        )


def _flip_mode(m: Measured, mode: str, right: str, said: str) -> Finding:
    maps = 'three maps' if m.parts.channels == 3 else 'one map'
    return Finding(
        ERROR,
        'flip-mode',
        'model.test_cfg.flip_mode',
        m.lines.find('flip_mode') or m.lines.find('flip_test', True),
        f'flip_mode={mode!r} is not for {maps} a keypoint: {said}',
        f'flip_mode={right!r}',
    )


def _pairs(m: Measured) -> Iterator[Finding]:
    """Left and right are each other's mirror image, in training as in testing."""
    tested = m.parts.flip_indices()
    line = m.lines.find('metainfo') or m.lines.find('from_file')
    odd = [k for k, mirror in enumerate(tested) if tested[mirror] != k]
    if odd:
        yield Finding(
            ERROR,
            'flip-indices',
            'dataset.metainfo',
            line,
            f'keypoints {odd} are not the mirror images of their mirror images, by the '
            'flip_indices of the test data: the flip test mixes them with others',
            "their 'swap' in the metainfo",
        )
        return
    if not m.parts.model.test_cfg.get('flip_test'):
        return
    for transform in m.transforms:
        flip = m.parts.flip_indices_of(transform.flow)
        if len(flip) == len(tested) and flip != tested:
            wrong = [k for k, mirror in enumerate(flip) if mirror != tested[k]]
            yield Finding(
                ERROR,
                'flip-indices',
                'dataset.metainfo',
                line,
                f'keypoints {wrong} have other mirror images in the '
                f'{transform.flow.name} data than in the flip test',
                "one metainfo, with one 'swap' for each keypoint",
            )


def _channels(m: Measured) -> Iterator[Finding]:
    """The head makes as many maps as the target has."""
    made = getattr(m.parts.head, 'out_channels', None)
    wanted = m.parts.num_keypoints * m.parts.channels
    some = m.parts.model.test_cfg.get('output_keypoint_indices')
    if made is None or some or made == wanted:
        return
    if m.parts.channels == 3:
        why = f'three for each of {m.parts.num_keypoints} keypoints'
    else:
        why = f'one for each of {m.parts.num_keypoints} keypoints'
    yield Finding(
        ERROR,
        'channels',
        'model.head.out_channels',
        m.lines.find('out_channels', made) or m.lines.find('out_channels'),
        f'the head makes {made} maps, and the target has {wanted}, {why}',
        f'out_channels={wanted}',
    )


def _losses(m: Measured) -> Iterator[Finding]:
    """The loss is that of the target, and so is the training accuracy."""
    if m.parts.train is None or any(_channels(m)) or any(_sizes(m)):
        return
    head_cfg = m.cfg.model.head
    losses = head_cfg.get('pose_cfg', head_cfg).get('loss') or {}
    losses = losses if isinstance(losses, list) else [losses]
    names = [str(type_name(loss)) for loss in losses]
    of_offsets = m.parts.channels == 3
    ours = isinstance(m.parts.head, UDPHead)
    wrong = [name for name in names if (name in OFFSET_LOSSES) != of_offsets]
    right = 'CombinedTargetMSELoss' if of_offsets else 'KeypointMSELoss'
    known = {'KeypointMSELoss', 'KeypointOHKMMSELoss', 'AdaptiveWingLoss'}
    known |= {'FocalHeatmapLoss', *OFFSET_LOSSES}
    if not ours and any(name in known for name in wrong):
        kind = 'offset maps' if of_offsets else 'Gaussian maps'
        yield Finding(
            ERROR,
            'loss',
            'model.head.loss',
            m.lines.find('type', wrong[0]),
            f'{wrong[0]} is not a loss of {kind}, which the target has',
            f"loss=dict(type='{right}', use_target_weight=True)",
        )
        return
    train_cfg = m.parts.model.train_cfg or {}
    failure = _loss_failure(m.parts, train_cfg)
    if failure and not _loss_failure(m.parts, dict(compute_acc=False)):
        yield Finding(
            ERROR,
            'training-accuracy',
            'model.train_cfg.compute_acc',
            m.lines.find('compute_acc') or m.lines.find('type', names[0]),
            f'training fails where it computes its accuracy, of all three maps a '
            f'keypoint: {failure}',
            'train_cfg=dict(compute_acc=False), or UDPHeatmapHead',
        )
    elif failure:
        yield Finding(
            ERROR,
            'loss',
            'model.head.loss',
            m.lines.find('type', names[0]),
            f'the loss of a perfect prediction fails: {failure}',
            f"loss=dict(type='{right}', use_target_weight=True)",
        )
    elif of_offsets and not ours and train_cfg.get('compute_acc', True):
        yield Finding(
            WARNING,
            'training-accuracy',
            'model.train_cfg.compute_acc',
            m.lines.find('compute_acc') or m.lines.find('type', names[0]),
            'the training accuracy is computed over all three maps a keypoint, which '
            'means nothing',
            'train_cfg=dict(compute_acc=False), or UDPHeatmapHead',
        )


def _loss_failure(parts: Parts, train_cfg: dict) -> str:
    """Why the loss of a perfect prediction cannot be computed, or nothing."""
    head = parts.head
    if hasattr(head, 'num_stages'):
        # Outputs of stages and units have levels of targets of their own.
        return ''
    keypoints = np.full((2, parts.num_keypoints, 2), np.asarray(parts.input_size) / 3)
    maps = parts.encode(keypoints, np.ones(keypoints.shape[:2]))
    samples = [_run(parts, parts.train)['data_samples'] for _ in range(2)]
    try:
        with torch.no_grad(), replaced(head, forward=lambda feats: maps):
            losses = head.loss(maps, samples, train_cfg=train_cfg)
        finite = all(torch.isfinite(torch.as_tensor(v)).all() for v in losses.values())
        return '' if finite else 'it is not finite'
    except Exception as error:
        return f'{type(error).__name__}: {short(error)}'


def short(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ['without a message'])[0][:200]


def _kernels(m: Measured) -> Iterator[Finding]:
    """DARK's kernel is as wide as the Gaussian."""
    decoder = m.parts.head.decoder
    kernel, sigma = (
        getattr(decoder, key, None) for key in ('blur_kernel_size', 'sigma')
    )
    # MSRAHeatmap has a kernel without DARK, too.
    dark = isinstance(decoder, UDPCodec) or getattr(
        decoder, 'unbiased', type(decoder).__name__ == 'UDPHeatmap'
    )
    if m.parts.channels == 3 or not dark or not kernel or not sigma:
        return
    fitting = F.dark_kernel_size(float(np.max(sigma)))
    if max(kernel / fitting, fitting / kernel) < KERNEL_FACTOR:
        return
    yield Finding(
        WARNING,
        'kernel',
        'model.head.decoder.blur_kernel_size',
        m.lines.find('blur_kernel_size') or _line_of_codec(m),
        f'blur_kernel_size={kernel} does not fit sigma={sigma}: with 5 % noise on the '
        f'maps keypoints are {_mean(m.coding.noisy):.2f} px off, on average, and '
        f'{_mean(m.coding.border[0][:, None]):.2f} px at the border',
        f'blur_kernel_size={fitting} (6 sigma - 1)',
    )


def _order(m: Measured) -> Iterator[Finding]:
    """The target is made of warped keypoints."""
    for flow in m.parts.flows:
        target, warp = flow.find('encoder'), _warp_step(flow)
        if target is not None and warp is not None and target < warp:
            yield Finding(
                ERROR,
                'order',
                _place(flow, target),
                m.lines.find('type', type_name(flow.steps[target]), _inside(flow)),
                f'the {flow.name} pipeline makes the target before the warp, of '
                'keypoints in source px',
                f'{type_name(flow.steps[target])} after {type_name(flow.steps[warp])}',
            )


def _random(m: Measured) -> Iterator[Finding]:
    """Testing is not random."""
    for transform in m.transforms:
        flow = transform.flow
        if not transform.random:
            continue
        index = next(
            (
                index
                for index, step in enumerate(flow.steps)
                if str(type_name(step)).startswith('Random')
            ),
            None,
        )
        name = type_name(flow.steps[index]) if index is not None else 'a step'
        yield Finding(
            ERROR,
            'random-test',
            _place(flow, index),
            m.lines.find('type', name, _inside(flow)),
            f'the {flow.name} pipeline is random ({name}): a person comes out '
            'differently each time, and rotations and mirroring are not mapped back',
            f'without {name}',
        )


def _paddings(m: Measured) -> Iterator[Finding]:
    """All pipelines leave the same room around a box."""
    paddings: Dict[str, float] = {}
    steps = {}
    for transform in m.transforms:
        flow = transform.flow
        for index, step in enumerate(flow.steps):
            if type_name(step) == 'GetBBoxCenterScale':
                paddings[flow.name] = float(step.get('padding', 1.25))
                steps[flow.name] = (flow, index)
    if len(set(paddings.values())) < 2:
        return
    reference = paddings.get('train', next(iter(paddings.values())))
    for name, padding in paddings.items():
        if padding == reference:
            continue
        flow, index = steps[name]
        yield Finding(
            WARNING,
            'padding',
            f'{_place(flow, index)}.padding',
            m.lines.find('padding', padding, _inside(flow))
            or m.lines.find('type', 'GetBBoxCenterScale', _inside(flow)),
            f'the {name} pipeline pads boxes by {padding:g}, the train pipeline by '
            f'{reference:g}: people are of another size than in training',
            f'padding={reference:g}',
        )


def _biased(m: Measured) -> Iterator[Finding]:
    """The whole measures by pixels, or rounds."""
    if m.coding.kind not in (PIXELS, CELLS) or _other_codec(m):
        return
    if any(t.kind == UNIT_LENGTH for t in m.transforms):
        # It is half UDP, which is said.
        return
    parts = []
    if m.flip is not None and m.flip.configured is not None:
        parts.append(
            f'the flip test leaves {np.abs(m.flip.configured).mean(0)[0]:.2f} px'
        )
    off = _mean(m.coding.errors)
    if off > TOLERANCE:
        parts.append(f'coding adds {off:.2f} px an axis')
    effect = ', '.join(parts) or 'mirrored maps do not coincide'
    yield Finding(
        WARNING,
        'biased',
        'model.head.decoder',
        _line_of_codec(m),
        f'sizes are measured in pixels where it should be intervals: {effect}',
        '`udp-plugin convert` writes the config with UDP',
    )


CHECKS: List[Callable[[Measured], Iterator[Finding]]] = [
    _warps,
    _equations,
    _sizes,
    _order,
    _random,
    _codecs,
    _answers,
    _back,
    _flips,
    _pairs,
    _channels,
    _losses,
    _kernels,
    _paddings,
    _biased,
]


def broken_pipelines(parts: Parts) -> List[Finding]:
    """Pipelines that do not run to their end, or hand on what does not fit."""
    found = []
    wanted = parts.num_keypoints * parts.channels
    for flow in parts.flows:
        try:
            failure = _misfit(_run(parts, flow), flow.training, wanted)
        except Exception as error:
            failure = f'it fails: {type(error).__name__}: {short(error)}'
        if failure:
            found.append(
                Finding(
                    ERROR,
                    'pipeline',
                    flow.places[0].rpartition('[')[0] if flow.places else flow.name,
                    '',
                    f'of the {flow.name} pipeline: {failure}',
                    'the steps of a stock config, in their order',
                )
            )
    return found


def _run(parts: Parts, flow: Flow) -> dict:
    """What comes out at a pipeline's end, of a person in the middle of an image."""
    image = np.zeros((*IMAGE_SIZE[::-1], 3), np.uint8)
    box = np.array([100.0, 100.0, 300.0, 400.0])
    np.random.seed(0)
    shape = (parts.metainfo_of(flow)['num_keypoints'], 2)
    keypoints = np.random.uniform(box[:2], box[2:], shape)
    return parts.warp(flow, parts.person(flow, image, box, keypoints)).end


def _misfit(end: dict, training: bool, wanted: int) -> str:
    """Why what a pipeline hands on does not fit, or nothing."""
    sample = end.get('data_samples')
    if sample is None:
        return 'it hands on no data_samples, as PackPoseInputs does'
    if not training or 'target_codecs' in sample.gt_instance_labels:
        return ''
    if 'gt_fields' not in sample:
        return 'it hands on no target maps, as GenerateTarget does'
    maps = getattr(sample.gt_fields, 'heatmaps', None)
    # Of several levels there are several.
    if isinstance(maps, torch.Tensor) and len(maps) != wanted:
        return f'its targets are {len(maps)} maps, where the test data ask for {wanted}'
    return ''


def of_failure(error: Exception) -> Finding:
    """The finding of a config whose components cannot even be built."""
    return Finding(
        ERROR,
        'build',
        'config',
        '',
        f'it does not build: {type(error).__name__}: {short(error)}',
        'what the message says; `udp-plugin convert --check` shows more',
    )
