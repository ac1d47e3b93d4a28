"""What does not go together in a config: each mismatch by name, with line and fix."""

from functools import cached_property, partial
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmpose.registry import KEYPOINT_CODECS

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec
from udp_plugin.models.heads.base import OFFSET_LOSSES, UDPHead, type_name

from .errors import mean_of_worse_axis
from .lines import Lines
from .parts import Flow, Parts, replaced
from .people import IMAGE_SIZE
from .result import ERROR, WARNING, Audit, Finding
from .theory import expected_coding
from .warps import CELLS, NEITHER, PIXELS, UNIT_LENGTH

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
#: The toolbox's losses of Gaussian maps.
GAUSSIAN_LOSSES = {
    'KeypointMSELoss',
    'KeypointOHKMMSELoss',
    'AdaptiveWingLoss',
    'FocalHeatmapLoss',
}
OUR_CODECS = 'UDPGaussianHeatmap or UDPOffsetHeatmap'

_error = partial(Finding, ERROR)
_warning = partial(Finding, WARNING)


def find(audit: Audit, cfg: Config) -> List[Finding]:
    """All findings, errors first."""
    found = _Checks(audit, cfg).run()
    if audit.failure and not any(f.severity == ERROR for f in found):
        what = f'predicting fails: {audit.failure}'
        fix = 'what the message says; tools/test.py fails in the same way'
        found.append(_error('prediction', 'model', '', what, fix))
    return sorted(found, key=lambda finding: finding.severity != ERROR)


class _Checks:
    """The checks, each of which yields what it finds.

    Args:
        audit: All that findings are made of; what could not be measured is None.
        cfg: The config.
    """

    def __init__(self, audit: Audit, cfg: Config) -> None:
        self.audit, self.cfg, self.lines = audit, cfg, Lines(cfg)
        self.parts, self.coding, self.flip = audit.parts, audit.coding, audit.flip
        self.transforms = audit.transforms
        self.found: List[Finding] = []
        decoder = type(self.parts.head.decoder).__name__
        self.codec = decoder
        self.codec_line = self.lines.find('type', decoder)
        self.our_head = isinstance(self.parts.head, UDPHead)
        kind = self.coding.kind
        #: How everything has to measure that goes with the target.
        self.wanted = PIXELS if kind == CELLS else kind
        #: Mean errors on the worse axis: of coding, and of warping there and back.
        self.coding_off = mean_of_worse_axis(self.coding.errors)
        end = audit.end_to_end
        self.back_off = 0.0 if end is None else mean_of_worse_axis(end.round_trip)
        expected = expected_coding(self.parts)
        self.coding_known = expected.x is not None
        self.coding_expected = max(expected.x or 0.0, expected.y or 0.0)

    def run(self) -> List[Finding]:
        """What all checks find; some look at what has been found before."""
        for check in (
            self.warps_measure_as_the_codec,
            self.warps_follow_their_equation,
            self.warps_make_the_input,
            self.target_is_made_of_warped_keypoints,
            self.testing_is_not_random,
            self.targets_are_made_by_the_codec_that_reads_them,
            self.what_is_coded_is_read,
            self.the_estimator_undoes_the_warp,
            self.mirrored_maps_lie_where_they_belong,
            self.keypoints_have_one_mirror_image,
            self.the_head_makes_the_targets_maps,
            self.the_loss_is_the_targets,
            self.darks_kernel_fits_sigma,
            self.boxes_are_padded_alike,
            self.sizes_are_intervals,
        ):
            self.found += check()
        return self.found

    def has_error(self, *names: str) -> bool:
        """Whether one of these errors has been found, or any if none is named."""
        errors = [f.name for f in self.found if f.severity == ERROR]
        return any(not names or name in names for name in errors)

    @cached_property
    def other_codec(self) -> bool:
        """Whether target and head have codecs of two kinds, to be mended first."""
        found = self.targets_are_made_by_the_codec_that_reads_them()
        return any(finding.where.endswith('.encoder') for finding in found)

    @property
    def reads_what_was_coded(self) -> bool:
        """Whether both have one measure, and perfect maps are read as they can be."""
        limit = 1.1 * self.coding_expected + TOLERANCE
        return self.coding.answer == self.wanted and self.coding_off <= limit

    def warp_at(self, flow: Flow) -> Tuple[str, str]:
        """Place and line of a flow's warp."""
        index = _warp_step(flow)
        if index is None:
            return flow.place(None), ''
        return flow.place(index), self.line_of(flow, type_name(flow.steps[index]))

    def line_of(self, flow: Flow, name: Optional[str]) -> str:
        """The line of a flow's step of this type."""
        line = self.lines.find('type', name, _variables(flow))
        return line or self.lines.find('type', name)

    # --- warps ------------------------------------------------------------------------

    def warps_measure_as_the_codec(self) -> Iterator[Finding]:
        if self.coding.kind == NEITHER or self.other_codec:
            return
        warps = [t for t in self.transforms if t.kind != NEITHER]
        wrong = [t for t in warps if t.kind != self.wanted]
        back = ''
        if self.back_off:
            back = f'keypoints come back {self.back_off:.2f} px off, on average'
        if wrong and len(wrong) == len(warps):
            place, line = self.warp_at(wrong[0].flow)
            fix = 'use_udp=True in every TopdownAffine, or TopDownAffineUDP'
            if self.wanted != UNIT_LENGTH:
                line = self.codec_line
                fix = f'UDPHeatmap, {OUR_CODECS} as the codec of head and target'
            what = (
                f'all warps measure the input by its {wrong[0].kind}, the codec '
                f'({self.codec}) the map by its {self.wanted}'
            )
            what += back and f': {back}'
            yield _error('half-enabled', place, line, what, fix)
            return
        for transform in wrong:
            flow = transform.flow
            effect = 'keypoints come back up to a pixel off'
            if flow.training:
                effect = 'the network is trained on other images than it is tested on'
            elif flow is self.parts.test and back:
                effect = back
            fix = 'without use_udp=True (TopdownAffine)'
            if self.wanted == UNIT_LENGTH:
                name = type_name(flow.steps[_warp_step(flow) or 0])
                fix = f'use_udp=True in {name}, or TopDownAffineUDP'
            yield Finding(
                WARNING if flow.training else ERROR,
                'warp-differs',
                *self.warp_at(flow),
                f'the {flow.name} pipeline measures the input by its {transform.kind}, '
                f'the others and the codec by its {self.wanted}: {effect}',
                fix,
            )

    def warps_follow_their_equation(self) -> Iterator[Finding]:
        """Eq. 41 or Eq. 30, and they take image and keypoints along."""
        for transform in self.transforms:
            name, at = transform.flow.name, self.warp_at(transform.flow)
            off = float(np.abs(transform.deviation).max())
            if off > TOLERANCE:
                equation = 'Eq. 41' if transform.kind == UNIT_LENGTH else 'Eq. 30'
                yield _error(
                    'warp-equation',
                    *at,
                    f'the {name} pipeline warps keypoints up to {off:.2f} px off '
                    f'{equation}, by the box that it hands on (input_center, '
                    'input_scale)',
                    'TopDownAffineUDP',
                )
            found = np.isfinite(transform.misfit).all(-1)
            x, y = transform.misfit[found].mean(0) if found.any() else (0.0, 0.0)
            if len(found) and found.mean() < 0.5:
                what = (
                    f'the images of the {name} pipeline do not show what is at the '
                    'keypoints'
                )
            elif max(abs(x), abs(y)) > TOLERANCE:
                what = (
                    f'the {name} pipeline warps the image ({x:+.2f}, {y:+.2f}) px off '
                    'the keypoints, on average'
                )
            else:
                continue
            fix = 'TopDownAffineUDP, which warps both by one matrix'
            yield _error('image-and-keypoints', *at, what, fix)

    def warps_make_the_input(self) -> Iterator[Finding]:
        """Of the size that the codec has."""
        wanted = self.parts.input_size
        sizes = {transform.input_size for transform in self.transforms}
        if len(sizes) == 1 and sizes != {wanted}:
            (size,) = sizes
            yield _error(
                'input-size',
                'model.head.decoder.input_size',
                self.lines.find('input_size', wanted),
                f'all pipelines make inputs of {_size(size)}, the codec is for '
                f'{_size(wanted)}',
                f'input_size={size}',
            )
            return
        for flow, *_, size in self.transforms:
            if size != wanted:
                place, line = self.warp_at(flow)
                yield _error(
                    'input-size',
                    f'{place}.input_size',
                    self.lines.find('input_size', size, _variables(flow)) or line,
                    f'the {flow.name} pipeline makes inputs of {_size(size)}, the '
                    f'codec is for {_size(wanted)}',
                    f'input_size={wanted}',
                )

    def target_is_made_of_warped_keypoints(self) -> Iterator[Finding]:
        for flow in self.parts.flows:
            target, warp = flow.find('encoder'), _warp_step(flow)
            if target is not None and warp is not None and target < warp:
                name = type_name(flow.steps[target])
                yield _error(
                    'order',
                    flow.place(target),
                    self.lines.find('type', name, _variables(flow)),
                    f'the {flow.name} pipeline makes the target before the warp, of '
                    'keypoints in source px',
                    f'{name} after {type_name(flow.steps[warp])}',
                )

    def testing_is_not_random(self) -> Iterator[Finding]:
        for transform in self.transforms:
            if not transform.random:
                continue
            flow = transform.flow
            names = [str(type_name(step)) for step in flow.steps]
            index = next(
                (i for i, name in enumerate(names) if name.startswith('Random')), None
            )
            name = 'a step' if index is None else names[index]
            yield _error(
                'random-test',
                flow.place(index),
                self.lines.find('type', name, _variables(flow)),
                f'the {flow.name} pipeline is random ({name}): a person comes out '
                'differently each time, and rotations and mirroring are not mapped '
                'back',
                f'without {name}',
            )

    def boxes_are_padded_alike(self) -> Iterator[Finding]:
        paddings: Dict[str, Tuple[float, Flow, int]] = {}
        for transform in self.transforms:
            flow = transform.flow
            for index, step in enumerate(flow.steps):
                if type_name(step) == 'GetBBoxCenterScale':
                    padding = float(step.get('padding', 1.25))
                    paddings[flow.name] = padding, flow, index
        first = next(iter(paddings.values()), (1.25,))
        reference = paddings.get('train', first)[0]
        for name, (padding, flow, index) in paddings.items():
            if padding == reference:
                continue
            inside = _variables(flow)
            yield _warning(
                'padding',
                f'{flow.place(index)}.padding',
                self.lines.find('padding', padding, inside)
                or self.lines.find('type', 'GetBBoxCenterScale', inside),
                f'the {name} pipeline pads boxes by {padding:g}, the train pipeline by '
                f'{reference:g}: people are of another size than in training',
                f'padding={reference:g}',
            )

    # --- codec ------------------------------------------------------------------------

    def targets_are_made_by_the_codec_that_reads_them(self) -> Iterator[Finding]:
        for transform in self.transforms:
            if transform.flow.training:
                yield from self._target_codec(transform.flow)

    def _target_codec(self, flow: Flow) -> Iterator[Finding]:
        index = flow.find('encoder')
        if index is None:
            return
        encoder = flow.steps[index]['encoder']
        if isinstance(encoder, (list, tuple)):
            levels = getattr(self.parts.head, 'level_indices', None)
            encoder = encoder[levels[-1] if levels else -1]
        try:
            made = KEYPOINT_CODECS.build(dict(encoder))
        except Exception:
            # Whoever uses it says so: the head or the target.
            return
        read = self.parts.head.decoder
        place = f'{flow.place(index)}.encoder'
        fix = 'the same codec for the target (encoder) and the head (decoder)'
        # Of the first flow the target has been measured.
        measured = flow is self.parts.train
        if type(made) is not type(read):
            if measured and self.reads_what_was_coded:
                return
            yield _error(
                'codec-differs',
                place,
                self.lines.find('type', type_name(encoder)),
                f'targets of the {flow.name} pipeline are made by '
                f'{type(made).__name__} and read by {self.codec}',
                fix,
            )
            return
        measured = measured and self.coding_off > TOLERANCE
        for key in CODEC_SETTINGS:
            ours, theirs = (_plain(getattr(one, key, None)) for one in (made, read))
            if ours == theirs:
                continue
            what = (
                f'targets of the {flow.name} pipeline are made with {key}={ours} and '
                f'read with {key}={theirs}'
            )
            if measured:
                what += f': {self.coding_off:.2f} px off, on average'
            yield Finding(
                ERROR if key != 'sigma' or measured else WARNING,
                'codec-differs',
                f'{place}.{key}',
                self.lines.find(key, ours) or self.lines.find(key, theirs),
                what,
                fix,
            )
            # What follows from it differs, too.
            return

    def what_is_coded_is_read(self) -> Iterator[Finding]:
        if self.has_error('codec-differs'):
            return
        at = 'coding', 'model.head.decoder', self.codec_line
        x, y = self.coding.errors.mean(0)
        if NEITHER in (self.coding.kind, self.coding.answer):
            what = 'does not read what was coded, by whichever measure'
        elif self.coding.answer != self.wanted:
            what = (
                f'measures the map by its {self.wanted} where keypoints are coded, '
                f'and by its {self.coding.answer} where they are read'
            )
        elif max(abs(x), abs(y)) > TOLERANCE:
            what = f'reads perfect maps ({x:+.2f}, {y:+.2f}) px off, on average'
        else:
            if self.coding_known and not self.reads_what_was_coded:
                yield _warning(
                    *at,
                    f'{self.codec} reads perfect maps {self.coding_off:.2f} px off, on '
                    f'average, where {self.coding_expected:.2f} px can be expected',
                    'the settings with which the codec comes, or another reading',
                )
            return
        yield _error(*at, f'{self.codec} {what}', OUR_CODECS)

    def the_estimator_undoes_the_warp(self) -> Iterator[Finding]:
        others = {f.name for f in self.found if f.severity == ERROR} - {'order'}
        if self.back_off > TOLERANCE and not others:
            name = type(self.parts.model).__name__
            yield _error(
                'mapping-back',
                'model.type',
                self.lines.find('type', name, ['model']),
                f'{name} maps keypoints back to the source {self.back_off:.2f} px off '
                'the inverse of the warp, on average',
                'TopdownPoseEstimator, or UDPTopdownPoseEstimator for rotated boxes',
            )

    def darks_kernel_fits_sigma(self) -> Iterator[Finding]:
        decoder = self.parts.head.decoder
        kernel = getattr(decoder, 'blur_kernel_size', None)
        sigma = getattr(decoder, 'sigma', None)
        # MSRAHeatmap has a kernel without DARK, too.
        dark = getattr(decoder, 'unbiased', self.codec == 'UDPHeatmap')
        dark = dark or isinstance(decoder, UDPCodec)
        if self.parts.channels == 3 or not dark or not kernel or not sigma:
            return
        fitting = F.dark_kernel_size(float(np.max(sigma)))
        if max(kernel / fitting, fitting / kernel) >= KERNEL_FACTOR:
            noisy = mean_of_worse_axis(self.coding.noisy)
            yield _warning(
                'kernel',
                'model.head.decoder.blur_kernel_size',
                self.lines.find('blur_kernel_size') or self.codec_line,
                f'blur_kernel_size={kernel} does not fit sigma={sigma}: with 5 % noise '
                f'on the maps keypoints are {noisy:.2f} px off, on average, and '
                f'{np.abs(self.coding.border[0]).mean():.2f} px at the border',
                f'blur_kernel_size={fitting} (6 sigma - 1)',
            )

    def sizes_are_intervals(self) -> Iterator[Finding]:
        if self.coding.kind not in (PIXELS, CELLS) or self.other_codec:
            return
        if any(t.kind == UNIT_LENGTH for t in self.transforms):
            # It is half UDP, which is said.
            return
        effects = []
        if self.flip is not None and self.flip.configured is not None:
            off = np.abs(self.flip.configured).mean(0)[0]
            effects.append(f'the flip test leaves {off:.2f} px')
        if self.coding_off > TOLERANCE:
            effects.append(f'coding adds {self.coding_off:.2f} px an axis')
        effect = ', '.join(effects) or 'mirrored maps do not coincide'
        yield _warning(
            'biased',
            'model.head.decoder',
            self.codec_line,
            f'sizes are measured in pixels where it should be intervals: {effect}',
            '`udp-plugin convert` writes the config with UDP',
        )

    # --- flip test --------------------------------------------------------------------

    def mirrored_maps_lie_where_they_belong(self) -> Iterator[Finding]:
        kinds = {transform.kind for transform in self.transforms}
        half = self.coding.kind != UNIT_LENGTH and kinds == {UNIT_LENGTH}
        if self.other_codec or half:
            # With the codec that is right, the flip test will be another.
            return
        where, find = 'model.test_cfg', self.lines.find
        test_line = find('flip_test', True)
        mode_line = find('flip_mode') or test_line
        mode = self.parts.model.test_cfg.get('flip_mode', 'heatmap')
        right = 'udp_combined' if self.parts.channels == 3 else 'heatmap'
        failure, flip = self.audit.flip_failure, self.flip
        if not failure and (flip is None or flip.configured is None):
            return
        if mode != right and not self.our_head:
            effect = f'the flip test fails: {failure}'
            if not failure:
                off = mean_of_worse_axis(flip.configured)
                effect = f'mirrored maps are joined {off:.2f} px off, on average'
            maps = 'three maps' if self.parts.channels == 3 else 'one map'
            what = f'flip_mode={mode!r} is not for {maps} a keypoint: {effect}'
            at = f'{where}.flip_mode', mode_line
            yield _error('flip-mode', *at, what, f'flip_mode={right!r}')
            return
        if failure:
            what = f'the flip test fails: {failure}'
            fix = (
                "maps for each keypoint of the data's flip_indices, or flip_test=False"
            )
            yield _error('flip-fails', where, test_line, what, fix)
            return
        means = [np.abs(one).mean(0) for one in (flip.averaged, flip.averaged_shifted)]
        shift = means[1].max() < means[0].max()
        best, other = means[shift], means[not shift]
        found = np.abs(flip.configured).mean(0)
        if not np.isfinite(found).all():
            found = np.full(2, np.inf)
        if found.max() <= best.max() + TOLERANCE:
            return
        if np.abs(found - other).max() < TOLERANCE + 0.01 * found.max():
            yield _error(
                'flip-shift',
                f'{where}.shift_heatmap',
                find('shift_heatmap', not shift) or test_line,
                f'the flip test is {found[0]:.2f} px off, and would be '
                f'{best[0]:.2f} px {"with" if shift else "without"} the shift',
                f'shift_heatmap={shift}',
            )
            return
        yield _error(
            'flip-maps',
            where,
            mode_line,
            f'the flip test is ({found[0]:.2f}, {found[1]:.2f}) px off, as no shift '
            'explains: channels, signs or keypoints are swapped wrongly',
            f'flip_mode={right!r}, and the swaps of the data set as they are mirrored',
        )

    def keypoints_have_one_mirror_image(self) -> Iterator[Finding]:
        """Left and right are each other's, in training as in testing."""
        tested = self.parts.flip_indices()
        line = self.lines.find('metainfo') or self.lines.find('from_file')
        at = 'flip-indices', 'dataset.metainfo', line
        odd = [k for k, mirror in enumerate(tested) if tested[mirror] != k]
        if odd:
            yield _error(
                *at,
                f'keypoints {odd} are not the mirror images of their mirror images, by '
                'the flip_indices of the test data: the flip test mixes them with '
                'others',
                "their 'swap' in the metainfo",
            )
        elif self.parts.model.test_cfg.get('flip_test'):
            for transform in self.transforms:
                flip = self.parts.flip_indices_of(transform.flow)
                if len(flip) == len(tested) and flip != tested:
                    wrong = [k for k, one in enumerate(flip) if one != tested[k]]
                    yield _error(
                        *at,
                        f'keypoints {wrong} have other mirror images in the '
                        f'{transform.flow.name} data than in the flip test',
                        "one metainfo, with one 'swap' for each keypoint",
                    )

    # --- head -------------------------------------------------------------------------

    def the_head_makes_the_targets_maps(self) -> Iterator[Finding]:
        count, channels = self.parts.num_keypoints, self.parts.channels
        made, wanted = getattr(self.parts.head, 'out_channels', None), count * channels
        some = self.parts.model.test_cfg.get('output_keypoint_indices')
        if made is None or some or made == wanted:
            return
        yield _error(
            'channels',
            'model.head.out_channels',
            self.lines.find('out_channels', made) or self.lines.find('out_channels'),
            f'the head makes {made} maps, and the target has {wanted}, '
            f'{"three" if channels == 3 else "one"} for each of {count} keypoints',
            f'out_channels={wanted}',
        )

    def the_loss_is_the_targets(self) -> Iterator[Finding]:
        """And so is the training accuracy."""
        if self.parts.train is None or self.has_error('channels', 'input-size'):
            return
        head_cfg = self.cfg.model.head
        losses = head_cfg.get('pose_cfg', head_cfg).get('loss') or {}
        losses = losses if isinstance(losses, list) else [losses]
        names = [str(type_name(loss)) for loss in losses]
        offsets = self.parts.channels == 3
        wrong = [name for name in names if (name in OFFSET_LOSSES) != offsets]
        right = 'CombinedTargetMSELoss' if offsets else 'KeypointMSELoss'
        fix = f"loss=dict(type='{right}', use_target_weight=True)"
        known = GAUSSIAN_LOSSES.union(OFFSET_LOSSES)
        if not self.our_head and known.intersection(wrong):
            kind = 'offset maps' if offsets else 'Gaussian maps'
            what = f'{wrong[0]} is not a loss of {kind}, which the target has'
            line = self.lines.find('type', wrong[0])
            yield _error('loss', 'model.head.loss', line, what, fix)
            return
        line = self.lines.find('type', names[0])
        acc_line = self.lines.find('compute_acc') or line
        acc = 'training-accuracy', 'model.train_cfg.compute_acc', acc_line
        acc_fix = 'train_cfg=dict(compute_acc=False), or UDPHeatmapHead'
        train_cfg = self.parts.model.train_cfg or {}
        failure = _loss_failure(self.parts, train_cfg)
        if failure and not _loss_failure(self.parts, dict(compute_acc=False)):
            yield _error(
                *acc,
                'training fails where it computes its accuracy, of all three maps a '
                f'keypoint: {failure}',
                acc_fix,
            )
        elif failure:
            what = f'the loss of a perfect prediction fails: {failure}'
            yield _error('loss', 'model.head.loss', line, what, fix)
        elif offsets and not self.our_head and train_cfg.get('compute_acc', True):
            yield _warning(
                *acc,
                'the training accuracy is computed over all three maps a keypoint, '
                'which means nothing',
                acc_fix,
            )


def _variables(flow: Flow) -> List[str]:
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


def _size(size: Sequence[int]) -> str:
    return '×'.join(map(str, size))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _loss_failure(parts: Parts, train_cfg: dict) -> str:
    """Why the loss of a perfect prediction cannot be computed, or nothing."""
    head = parts.head
    if hasattr(head, 'num_stages'):
        # Outputs of stages and units have levels of targets of their own.
        return ''
    keypoints = np.full((2, parts.num_keypoints, 2), np.asarray(parts.input_size) / 3)
    maps = parts.encode(keypoints)
    samples = [_run(parts, parts.train)['data_samples'] for _ in range(2)]
    try:
        with torch.no_grad(), replaced(head, forward=lambda feats: maps):
            losses = head.loss(maps, samples, train_cfg=train_cfg)
        finite = all(torch.isfinite(torch.as_tensor(v)).all() for v in losses.values())
        return '' if finite else 'it is not finite'
    except Exception as error:
        return in_words(error)


def in_words(error: Exception) -> str:
    """An error's type, and the first line of its message."""
    lines = str(error).strip().splitlines() or ['without a message']
    return f'{type(error).__name__}: {lines[0][:200]}'


# --- before anything is measured ------------------------------------------------------


def broken_pipelines(parts: Parts) -> List[Finding]:
    """Pipelines that do not run to their end, or hand on what does not fit."""
    found = []
    wanted = parts.num_keypoints * parts.channels
    for flow in parts.flows:
        try:
            failure = _misfit(_run(parts, flow), flow.training, wanted)
        except Exception as error:
            failure = f'it fails: {in_words(error)}'
        if failure:
            where = flow.places[0].rpartition('[')[0] if flow.places else flow.name
            what = f'of the {flow.name} pipeline: {failure}'
            fix = 'the steps of a stock config, in their order'
            found.append(_error('pipeline', where, '', what, fix))
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
