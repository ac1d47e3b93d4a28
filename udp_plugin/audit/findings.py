"""What does not go together in a config: each mismatch by name, with line and fix."""

from functools import cached_property
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
from mmengine.config import Config
from mmpose.evaluation.metrics import CocoMetric
from mmpose.registry import KEYPOINT_CODECS, METRICS

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec
from udp_plugin.convert.check import larger_input, map_size
from udp_plugin.convert.swaps import nodes
from udp_plugin.keypoint_names import mirror_images
from udp_plugin.models.heads.base import OFFSET_LOSSES, UDPHead, type_name
from udp_plugin.names import LOSSES

from .errors import mean_of_worse_axis
from .flows import Flow
from .lines import Lines
from .parts import network_of, of_last_level
from .people import sigmas_fault
from .result import Audit, Finding, finding
from .theory import expected_coding, misalignment
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
GAUSSIAN_LOSSES = {*LOSSES, 'AdaptiveWingLoss', 'FocalHeatmapLoss'}


class Checks:
    """The checks, each of which yields what it finds.

    Args:
        audit: All that findings are made of; what could not be measured is None.
        cfg: The config.
    """

    def __init__(self, audit: Audit, cfg: Config) -> None:
        self.audit, self.cfg, self.lines = audit, cfg, Lines(cfg)
        self.parts, self.coding, self.flip = audit.parts, audit.coding, audit.flip
        self.transforms, self.test_cfg = audit.transforms, audit.parts.model.test_cfg
        self.found: List[Finding] = []
        self.codec = type(self.parts.head.decoder).__name__
        self.codec_line = self.lines.find('type', self.codec)
        head = self.parts.head
        self.our_head = isinstance(head, UDPHead)
        #: Whether it is for weights that were trained with a stock codec.
        self.kept = self.our_head and head.reading is not head.decoder
        #: How everything has to measure that goes with the target.
        self.wanted = PIXELS if self.coding.kind == CELLS else self.coding.kind
        #: Mean errors on the worse axis: of coding, and of warping there and back.
        self.coding_off = mean_of_worse_axis(self.coding.errors)
        end = audit.end_to_end
        self.back_off = 0.0 if end is None else mean_of_worse_axis(end.round_trip)
        expected = expected_coding(self.parts)
        self.coding_known = expected.x is not None
        self.coding_expected = max(expected.x or 0.0, expected.y or 0.0)

    def run(self) -> List[Finding]:
        """All findings, errors first; some checks look at what was found before."""
        for check in (
            self.warps_measure_as_the_codec,
            self.warps_follow_their_equation,
            self.warps_make_the_input,
            self.the_network_makes_the_codecs_maps,
            self.target_is_made_of_warped_keypoints,
            self.testing_is_not_random,
            self.testing_makes_no_targets,
            self.targets_are_made_by_the_codec_that_reads_them,
            self.what_is_coded_is_read,
            self.the_estimator_undoes_the_warp,
            self.mirrored_maps_lie_where_they_belong,
            self.keypoints_have_one_mirror_image,
            self.mirrored_samples_are_mirror_images,
            self.names_and_mirror_images_go_together,
            self.the_head_makes_the_targets_maps,
            self.the_loss_is_the_targets,
            self.darks_kernel_fits_sigma,
            self.boxes_are_padded_alike,
            self.evaluation_has_its_sigmas,
            self.sizes_are_intervals,
            self.weights_have_the_codecs_measure,
            self.labels_lie_where_they_belong,
        ):
            self.found += check()
        if self.audit.failure and not self.errors():
            values = dict(failure=self.audit.failure)
            self.found.append(finding('prediction', 'model', **values))
        return sorted(self.found, key=lambda one: one.severity != 'error')

    def errors(self) -> List[str]:
        """The names of the errors that have been found."""
        return [one.name for one in self.found if one.severity == 'error']

    @cached_property
    def other_codec(self) -> bool:
        """Whether target and head have codecs of two kinds, to be mended first."""
        found = self.targets_are_made_by_the_codec_that_reads_them()
        return any(one.where.endswith('.encoder') for one in found)

    @property
    def reads_what_was_coded(self) -> bool:
        """Whether both have one measure, and perfect maps are read as they can be."""
        limit = 1.1 * self.coding_expected + TOLERANCE
        return self.coding.answer == self.wanted and self.coding_off <= limit

    def line(self, *settings: Tuple[str, Any], flow: Optional[Flow] = None) -> str:
        """The line of the first setting, a key and a value, that stands anywhere.

        With a flow, it is in a variable that has the flow's settings.
        """
        inside: Tuple[str, ...] = ()
        if flow is not None and 'stage 2' in flow.name:
            inside = 'stage2', 'hooks', 'switch'
        elif flow is not None:
            inside = ('train',) if flow.training else ('val', 'test')
            inside = ('test',) if flow.name == 'test' else inside
        lines = (self.lines.find(*setting, inside=inside) for setting in settings)
        return next(filter(None, lines), '')

    def warp_at(self, flow: Flow) -> Tuple[str, str]:
        """Place and line of a flow's warp."""
        index = _warp_step(flow)
        if index is None:
            return flow.name, ''
        named = 'type', type_name(flow.steps[index])
        return flow.place(index), self.line(named, flow=flow) or self.line(named)

    # --- warps ------------------------------------------------------------------------

    def warps_measure_as_the_codec(self) -> Iterator[Finding]:
        if self.coding.kind == NEITHER or self.other_codec:
            return
        warps = [t for t in self.transforms if t.kind != NEITHER]
        wrong = [t for t in warps if t.kind != self.wanted]
        back = f'keypoints come back {self.back_off:.2f} px off, on average'
        back = back if self.back_off else ''
        if wrong and len(wrong) == len(warps):
            place, line = self.warp_at(wrong[0].flow)
            fix = 'use_udp=True in every TopdownAffine, or TopDownAffineUDP'
            if self.wanted != UNIT_LENGTH:
                codec = 'UDPGaussianHeatmap or UDPOffsetHeatmap as the codec of head '
                codec += 'and target'
                if self.kept:
                    fix = 'TopdownAffine without use_udp=True in every pipeline, as '
                    fix += f'these weights were trained; or retrain with {codec}'
                else:
                    line, fix = self.codec_line, f'UDPHeatmap, {codec}'
            values = dict(effect=back and f': {back}', fix=fix, kind=wrong[0].kind)
            yield finding('half-enabled', place, line, c=self, **values)
            return
        for transform in wrong:
            flow, fix = transform.flow, 'without use_udp=True (TopdownAffine)'
            if self.wanted == UNIT_LENGTH:
                name = type_name(flow.steps[_warp_step(flow) or 0])
                fix = f'use_udp=True in {name}, or TopDownAffineUDP'
            effect = flow is self.parts.test and back
            effect = effect or 'keypoints come back up to a pixel off'
            yield finding(
                'warp-differs/training' if flow.training else 'warp-differs',
                *self.warp_at(flow),
                **dict(c=self, flow=flow, kind=transform.kind, effect=effect, fix=fix),
            )

    def warps_follow_their_equation(self) -> Iterator[Finding]:
        """Eq. 41 or Eq. 30, and they take image and keypoints along."""
        for flow, kind, deviation, misfit, *_ in self.transforms:
            at, off = self.warp_at(flow), float(np.abs(deviation).max())
            if off > TOLERANCE:
                equation = 'Eq. 41' if kind == UNIT_LENGTH else 'Eq. 30'
                values = dict(flow=flow, off=off, equation=equation)
                yield finding('warp-equation', *at, **values)
            found = np.isfinite(misfit).all(-1)
            x, y = misfit[found].mean(0) if found.any() else (0.0, 0.0)
            if len(found) and found.mean() < 0.5:
                yield finding('image-and-keypoints/unseen', *at, flow=flow)
            elif max(abs(x), abs(y)) > TOLERANCE:
                yield finding('image-and-keypoints', *at, flow=flow, x=x, y=y)

    def warps_make_the_input(self) -> Iterator[Finding]:
        """Of the size that the codec has."""
        wanted = self.parts.input_size
        sizes = {transform.input_size for transform in self.transforms}
        if len(sizes) == 1 and sizes != {wanted}:
            place = 'model.head.decoder.input_size'
            at = place, self.line(('input_size', wanted))
            yield finding('input-size/all', *at, size=sizes.pop(), wanted=wanted)
            return
        for flow, *_, size in self.transforms:
            if size != wanted:
                place, line = self.warp_at(flow)
                line = self.line(('input_size', size), flow=flow) or line
                values = dict(flow=flow, size=size, wanted=wanted)
                yield finding('input-size', f'{place}.input_size', line, **values)

    def the_network_makes_the_codecs_maps(self) -> Iterator[Finding]:
        """Of inputs of the codec's size, by their shapes alone."""
        size, wanted = self.parts.input_size, self.parts.heatmap_size
        network, place = network_of(self.cfg), 'model.head.decoder'
        made = None if network is None else map_size(network, size)
        if network is not None and made is None:
            larger = larger_input(network, size)
            if larger is not None:
                at = f'{place}.input_size', self.line(('input_size', size))
                values = dict(size=size, larger=larger, maps=map_size(network, larger))
                name = type(network.backbone).__name__
                yield finding('network-input', *at, name=name, **values)
                return
        key, swapped = 'heatmap-size', wanted[::-1]
        if made is None and _uneven(size, wanted) > 0.1 > 2 * _uneven(size, swapped):
            key, made = 'heatmap-size/swapped', swapped
        if made is not None and made != wanted:
            at = f'{place}.heatmap_size', self.line(('heatmap_size', wanted))
            note = ': width and height are swapped' if made == swapped else ''
            values = dict(made=made, wanted=wanted, size=size, note=note)
            yield finding(key, *at, stride=self.parts.stride(False), **values)

    def target_is_made_of_warped_keypoints(self) -> Iterator[Finding]:
        for flow in self.parts.flows:
            target, warp = flow.find('encoder'), _warp_step(flow)
            if target is not None and warp is not None and target < warp:
                names = [type_name(flow.steps[index]) for index in (target, warp)]
                at = flow.place(target), self.line(('type', names[0]), flow=flow)
                values = dict(flow=flow, target=names[0], warp=names[1])
                yield finding('order', *at, **values)

    def testing_is_not_random(self) -> Iterator[Finding]:
        for flow in (one.flow for one in self.transforms if one.random):
            names = [str(type_name(step)) for step in flow.steps]
            index = next((i for i, n in enumerate(names) if n[:6] == 'Random'), None)
            name = 'a step' if index is None else names[index]
            at = flow.place(index), self.line(('type', name), flow=flow)
            yield finding('random-test', *at, flow=flow, name=name)

    def testing_makes_no_targets(self) -> Iterator[Finding]:
        """Of people without annotated keypoints there are none to make."""
        for flow in self.parts.flows:
            index = flow.find('encoder')
            if index is not None and not flow.training:
                name = type_name(flow.steps[index])
                at = flow.place(index), self.line(('type', name), flow=flow)
                yield finding('pipeline/target', *at, flow=flow, name=name)

    def boxes_are_padded_alike(self) -> Iterator[Finding]:
        paddings = {}
        for transform in self.transforms:
            for index, step in enumerate(transform.flow.steps):
                if type_name(step) == 'GetBBoxCenterScale':
                    padding = float(step.get('padding', 1.25))
                    paddings[transform.flow.name] = padding, transform.flow, index
        reference = paddings.get('train', next(iter(paddings.values()), (1.25,)))[0]
        for padding, flow, index in paddings.values():
            if padding != reference:
                place = f'{flow.place(index)}.padding'
                said = ('padding', padding), ('type', 'GetBBoxCenterScale')
                values = dict(flow=flow, padding=padding, reference=reference)
                yield finding('padding', place, self.line(*said, flow=flow), **values)

    def evaluation_has_its_sigmas(self) -> Iterator[Finding]:
        for flow in (one for one in self.parts.flows if not one.training):
            metainfo = [flow.metainfo, *flow.replaced.values()][-1]
            used = [key for key in ('val', 'test') if key in flow.name]
            used = [key for key in used if _has_oks(self.cfg.get(f'{key}_evaluator'))]
            fault = sigmas_fault(metainfo)
            if used and fault:
                place = f'{used[0]}_dataloader.dataset.metainfo.sigmas'
                at = place, self.line(('sigmas',), ('metainfo',), ('from_file',))
                yield finding('sigmas', *at, flow=flow, fault=fault)

    # --- codec ------------------------------------------------------------------------

    def targets_are_made_by_the_codec_that_reads_them(self) -> Iterator[Finding]:
        for flow, *_ in self.transforms:
            index = flow.find('encoder')
            if flow.training and index is not None:
                yield from self._target_codec(flow, index)

    def _target_codec(self, flow: Flow, index: int) -> Iterator[Finding]:
        encoder = flow.steps[index]['encoder']
        encoder = of_last_level(encoder, self.parts.head)
        try:
            made, read = KEYPOINT_CODECS.build(dict(encoder)), self.parts.head.decoder
        except Exception:
            # Whoever uses it says so: the head or the target.
            return
        key, place = 'codec-differs', f'{flow.place(index)}.encoder'
        # Of the first flow the target has been measured.
        measured = flow is self.parts.train
        if type(made) is not type(read):
            if not measured or not self.reads_what_was_coded:
                line = self.line(('type', type_name(encoder)))
                values = dict(c=self, flow=flow, made=type(made).__name__)
                yield finding(key, place, line, **values)
            return
        measured = measured and self.coding_off > TOLERANCE
        effect = f': {self.coding_off:.2f} px off, on average' if measured else ''
        for setting in CODEC_SETTINGS:
            ours, theirs = (_plain(getattr(one, setting, None)) for one in (made, read))
            if ours != theirs:
                matters = setting != 'sigma' or measured
                yield finding(
                    f'{key}/setting' if matters else f'{key}/harmless',
                    f'{place}.{setting}',
                    self.line((setting, ours), (setting, theirs)),
                    **dict(flow=flow, setting=setting, made=ours, read=theirs),
                    effect=effect,
                )
                # What follows from it differs, too.
                return

    def what_is_coded_is_read(self) -> Iterator[Finding]:
        if 'codec-differs' in self.errors():
            return
        at = 'model.head.decoder', self.codec_line
        x, y = self.coding.errors.mean(0)
        if NEITHER in (self.coding.kind, self.coding.answer):
            yield finding('coding/unread', *at, c=self)
        elif self.coding.answer != self.wanted:
            yield finding('coding/measures', *at, c=self)
        elif max(abs(x), abs(y)) > TOLERANCE:
            yield finding('coding/off', *at, c=self, x=x, y=y)
        elif self.coding_known and not self.reads_what_was_coded:
            yield finding('coding/inaccurate', *at, c=self)

    def the_estimator_undoes_the_warp(self) -> Iterator[Finding]:
        # Whatever has been found explains it, but for the place of the target.
        if self.back_off > TOLERANCE and not set(self.errors()) - {'order'}:
            name = type(self.parts.model).__name__
            line = self.lines.find('type', name, ['model'])
            yield finding('mapping-back', 'model.type', line, c=self, name=name)

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
            yield finding(
                'kernel',
                'model.head.decoder.blur_kernel_size',
                self.line(('blur_kernel_size',)) or self.codec_line,
                **dict(kernel=kernel, sigma=sigma, fitting=fitting),
                noisy=mean_of_worse_axis(self.coding.noisy),
                border=np.abs(self.coding.border[0]).mean(),
            )

    def sizes_are_intervals(self) -> Iterator[Finding]:
        # Where it is half UDP, that is said.
        half = any(t.kind == UNIT_LENGTH for t in self.transforms)
        if self.coding.kind in (PIXELS, CELLS) and not self.other_codec and not half:
            effects = []
            if self.flip is not None and self.flip.configured is not None:
                off = np.abs(self.flip.configured).mean(0)[0]
                if not self.kept or off > TOLERANCE:
                    effects.append(f'the flip test leaves {off:.2f} px')
            if self.coding_off > TOLERANCE:
                effects.append(f'coding adds {self.coding_off:.2f} px an axis')
            if self.kept and not effects:
                return
            effect = ', '.join(effects) or 'mirrored maps do not coincide'
            at = 'model.head.decoder', self.codec_line
            yield finding('biased', *at, effect=effect)

    # --- trained weights --------------------------------------------------------------

    def weights_have_the_codecs_measure(self) -> Iterator[Finding]:
        trained = self.audit.trained
        if trained is not None and trained.wrong_measure:
            at = 'model.head.decoder', self.codec_line
            should = misalignment(self.parts, self.coding.kind)
            key = f'weights-measure/{trained.measure}'
            yield finding(key, *at, c=self, t=trained, should=should)

    def labels_lie_where_they_belong(self) -> Iterator[Finding]:
        trained = self.audit.trained
        if trained is not None and trained.labels_are_off:
            flow, off = self.parts.train or self.parts.test, trained.label_offset.mean
            at = f'{flow.data}.ann_file', self.line(('ann_file',), flow=flow)
            side, size = 'right' if off > 0 else 'left', abs(off)
            mend = f'subtract {size:.1f} from' if off > 0 else f'add {size:.1f} to'
            values = dict(t=trained, size=size, side=side, mend=mend)
            yield finding('label-offset', *at, **values)

    # --- flip test --------------------------------------------------------------------

    def mirrored_maps_lie_where_they_belong(self) -> Iterator[Finding]:
        kinds = {transform.kind for transform in self.transforms}
        half = self.coding.kind != UNIT_LENGTH and kinds == {UNIT_LENGTH}
        flip, failure = self.flip, self.audit.flip_failure
        off = not failure and (flip is None or flip.configured is None)
        if self.other_codec or half or off:
            # With the codec that is right, the flip test will be another.
            return
        where, test_line = 'model.test_cfg', self.line(('flip_test', True))
        mode_line = self.line(('flip_mode',)) or test_line
        mode, three = (
            self.test_cfg.get('flip_mode', 'heatmap'),
            self.parts.channels == 3,
        )
        right, maps = (
            ('udp_combined', 'three maps') if three else ('heatmap', 'one map')
        )
        if mode != right and not self.our_head:
            effect = f'the flip test fails: {failure}'
            if not failure:
                apart = mean_of_worse_axis(flip.configured)
                effect = f'mirrored maps are joined {apart:.2f} px off, on average'
            values = dict(mode=mode, right=right, maps=maps, effect=effect)
            yield finding('flip-mode', f'{where}.flip_mode', mode_line, **values)
            return
        if failure:
            yield finding('flip-fails', where, test_line, failure=failure)
            return
        means = [np.abs(one).mean(0) for one in (flip.averaged, flip.averaged_shifted)]
        shift = bool(means[1].max() < means[0].max())
        best, other = means[shift], means[not shift]
        found = np.abs(flip.configured).mean(0)
        if not np.isfinite(found).all():
            found = np.full(2, np.inf)
        if found.max() <= best.max() + TOLERANCE:
            return
        if np.abs(found - other).max() < TOLERANCE + 0.01 * found.max():
            line = self.line(('shift_heatmap', not shift)) or test_line
            with_it = 'with' if shift else 'without'
            values = dict(found=found, best=best, shift=shift, with_it=with_it)
            yield finding('flip-shift', f'{where}.shift_heatmap', line, **values)
            return
        yield finding('flip-maps', where, mode_line, found=found, right=right)

    def keypoints_have_one_mirror_image(self) -> Iterator[Finding]:
        """Left and right are each other's."""
        tested = self.parts.flip_indices()
        at = 'dataset.metainfo', self.line(('metainfo',), ('from_file',))
        odd = [k for k, mirror in enumerate(tested) if tested[mirror] != k]
        if odd:
            yield finding('flip-indices/odd', *at, odd=odd)

    def mirrored_samples_are_mirror_images(self) -> Iterator[Finding]:
        """Of each data set, whatever converts its keypoints before or after."""
        if 'flip-indices' in self.errors():
            return
        places = set()
        for found in sorted(self.audit.mirrorings, key=lambda one: one.flow.training):
            flow = found.flow
            flip, convert = flow.last('RandomFlip'), flow.last('KeypointConverter')
            where = flow.place_of('RandomFlip')
            line = self.line(('type', 'RandomFlip'), flow=flow)
            if found.unconverted and self.tested_by_samples:
                where = flow.place_of('KeypointConverter')
                line = self.line(('type', 'KeypointConverter'), flow=flow)
                yield finding('flip-indices/tested', where, line, found=found)
                # It says what mirror images are.
                return
            if where in places or not (found.wrong or found.unseen):
                continue
            places.add(where)
            if not found.wrong:
                yield finding('image-and-keypoints/mirrored', where, line, flow=flow)
            elif None in (flip, convert) or flow.replaced_between(convert, flip):
                line = self.line(('metainfo',), ('from_file',)) or line
                yield finding('flip-indices', where, line, found=found)
            else:
                key = 'later' if convert > flip else 'before'
                yield finding(f'flip-indices/{key}', where, line, found=found)

    def names_and_mirror_images_go_together(self) -> Iterator[Finding]:
        """By left and right in the names."""
        said = set()
        for found in self.audit.mirrorings:
            flow = found.flow
            # As it is where it counts.
            info = flow.metainfo_at(flow.last('RandomFlip'))
            names = list(info['keypoint_id2name'].values())
            pairs = {
                (names[min(k, twin)], names[max(k, twin)])
                for k, twin in enumerate(mirror_images(names))
                if twin not in (k, info['flip_indices'][k])
            }
            # Where they are mixed up, that is said.
            if pairs - said and 'flip-indices' not in self.errors():
                said |= pairs
                line = self.line(('metainfo',), ('from_file',), flow=flow)
                told = ', '.join(f'{one} and {other}' for one, other in sorted(pairs))
                yield finding('sides', flow.data, line, flow=flow, pairs=told)
            if found.crossed:
                where = flow.place_of('KeypointConverter')
                line = self.line(('type', 'KeypointConverter'), flow=flow)
                values = dict(flow=flow, crossed=', '.join(found.crossed))
                yield finding('sides/converted', where, line, **values)

    @property
    def tested_by_samples(self) -> bool:
        """Whether the flip test goes by what the samples say of their keypoints."""
        own = getattr(self.parts.model, 'metainfo', None)
        return bool(self.test_cfg.get('flip_test')) and not own

    # --- head -------------------------------------------------------------------------

    def the_head_makes_the_targets_maps(self) -> Iterator[Finding]:
        count, channels = self.parts.num_keypoints, self.parts.channels
        made, wanted = getattr(self.parts.head, 'out_channels', None), count * channels
        some = self.test_cfg.get('output_keypoint_indices')
        if made is not None and not some and made != wanted:
            head_cfg = self.cfg.model.head
            given = head_cfg.get('pose_cfg', head_cfg).get('out_channels', made)
            line = self.line(('out_channels', given), ('out_channels',))
            each = 'three' if channels == 3 else 'one'
            values = dict(made=made, wanted=wanted, each=each, count=count)
            # Some heads count keypoints there, and have three maps for each.
            values['right'] = wanted * given // made
            yield finding('channels', 'model.head.out_channels', line, **values)

    def the_loss_is_the_targets(self) -> Iterator[Finding]:
        """And so is the training accuracy."""
        errors = self.errors()
        if self.parts.train is None or 'channels' in errors or 'input-size' in errors:
            return
        head_cfg = self.cfg.model.head
        losses = head_cfg.get('pose_cfg', head_cfg).get('loss') or {}
        losses = losses if isinstance(losses, list) else [losses]
        names = [str(type_name(loss)) for loss in losses]
        right, kind, offsets = 'KeypointMSELoss', 'Gaussian maps', False
        if self.parts.channels == 3:
            right, kind, offsets = 'CombinedTargetMSELoss', 'offset maps', True
        wrong = [name for name in names if (name in OFFSET_LOSSES) != offsets]
        ours = self.our_head and not self.kept
        if not ours and GAUSSIAN_LOSSES.union(OFFSET_LOSSES) & {*wrong}:
            at, name = ('model.head.loss', self.line(('type', wrong[0]))), wrong[0]
            yield finding('loss', *at, name=name, kind=kind, right=right)
            return
        line = self.line(('type', names[0]))
        train_cfg = self.parts.model.train_cfg or {}
        failure = self.parts.loss_failure(train_cfg)
        at = 'model.train_cfg.compute_acc', self.line(('compute_acc',)) or line
        if failure and not self.parts.loss_failure(dict(compute_acc=False)):
            yield finding('training-accuracy', *at, failure=failure)
        elif failure:
            values = dict(failure=failure, right=right)
            yield finding('loss/fails', 'model.head.loss', line, **values)
        elif offsets and not ours and train_cfg.get('compute_acc', True):
            yield finding('training-accuracy/meaningless', *at)


def _warp_step(flow: Flow) -> Optional[int]:
    """The index of the warp, by what warps have or are called."""
    found = flow.find('input_size')
    if found is not None:
        return found
    names = [str(type_name(step) or step.get('type')) for step in flow.steps]
    return next((i for i, name in enumerate(names) if 'Affine' in name), None)


def _uneven(input_size: Tuple[int, int], heatmap_size: Tuple[int, int]) -> float:
    """How much more a heatmap shrinks one axis of the input than the other."""
    return float(np.ptp(np.log(np.divide(input_size, heatmap_size))))


def _has_oks(evaluator: Any) -> bool:
    """Whether one of an evaluator's metrics is COCO's, which has OKS."""
    metrics = (METRICS.get(str(type_name(node))) for _, node in nodes(evaluator or {}))
    return any(metric and issubclass(metric, CocoMetric) for metric in metrics)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(value) if isinstance(value, (list, tuple)) else value
