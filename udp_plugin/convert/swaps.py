"""What is swapped in a config, and why: a function on plain dicts."""

import copy
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from mmengine.utils import is_seq_of

from udp_plugin import functional as F
from udp_plugin.codecs import UDPOffsetHeatmap
from udp_plugin.errors import UserError
from udp_plugin.models.heads.base import (
    OFFSET_LOSSES,
    REPLACED_LOSSES,
    number_of_keypoints,
    type_name,
)
from udp_plugin.names import (
    CODECS,
    HEADS,
    LOSSES,
    PACKAGES,
    STOCK_CODECS,
    TRANSFORMS,
    kept_swaps,
)

#: The other codec, for those whom one does not suit.
OTHER = {'gaussian': 'offset', 'offset': 'gaussian'}
#: Maps a keypoint.
MAPS = {'gaussian': 1, 'offset': 3}
#: Why a codec and a transform are swapped.
WHY = {
    'gaussian': 'sub-pixel Gaussian, decoded in batches by DARK',
    'offset': 'disc and offsets, Eq. 24-26 and 29; decoded in batches',
    'TopdownAffine': 'warps by unit lengths, Eq. 41',
    'GenerateTarget': 'target of its codec',
}
#: Why an estimator is swapped where weights are kept, and a head, by its codec.
WHY_KEPT = {
    'estimator': 'dithers the flip test, if targets were rounded',
    'head': 'mirrored maps aligned by Eq. 36; read in batches by DARK',
    'UDPHeatmap': 'unbiased already; read in batches',
}
ALL_CODECS = (*STOCK_CODECS, *CODECS.values())
ALL_HEADS = (*HEADS, *HEADS.values())
#: The settings that every loss has.
LOSS_SETTINGS = ('use_target_weight', 'loss_weight')
#: Losses of Gaussian heatmaps only.
GAUSSIAN_LOSSES = {
    'AdaptiveWingLoss': 'shaped for the slope of a Gaussian; a disc has none',
    'FocalHeatmapLoss': 'weighs a Gaussian by its height; a disc has one height',
}
#: By these a pipeline is known to be one of top-down crops.
TOPDOWN = ('GetBBoxCenterScale', 'PackPoseInputs')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: The packages of the components written, for types given as classes.
MODULES = {**PACKAGES, **dict.fromkeys(LOSSES, 'mmpose.models.losses')}

#: Other kinds of configs, by beginnings of the model's or the head's name.
OTHER_KINDS = {
    'a bottom-up': ('BottomupPose', 'AssociativeEmbedding', 'CID', 'DEKR'),
    'a 3-D lifting': ('PoseLifter',),
    'a distillation': ('DWPoseDistiller',),
    'a SimCC': ('SimCC',),
    'a SimCC (RTMPose)': ('RTMCC',),
    'a SimCC (RTMW)': ('RTMW',),
    'a regression': ('Regression', 'RLE'),
    'an integral regression': ('DSNT',),
    'a 3-D regression': ('MotionRegression', 'Trajectory', 'Temporal'),
    'a 3-D hand': ('Internet',),
    'a one-stage': ('YOLOX', 'RTMO', 'EDPose'),
}


class Swap(NamedTuple):
    """One thing swapped: where, what was there, what is, and why."""

    place: str
    stock: str
    udp: str
    why: str


def nodes(cfg: Any, place: str = '') -> Iterator[Tuple[str, dict]]:
    """All dicts of a config with their places, outer ones first."""
    if isinstance(cfg, dict):
        yield place, cfg
        for key, value in cfg.items():
            yield from nodes(value, f'{place}.{key}' if place else str(key))
    elif isinstance(cfg, (list, tuple)):
        for where, value in _each(cfg, place):
            yield from nodes(value, where)


def _each(value: Any, place: str) -> List[Tuple[str, Any]]:
    """The elements of a list with their places, or what stands there alone."""
    if isinstance(value, (list, tuple)):
        return [(f'{place}[{index}]', each) for index, each in enumerate(value)]
    return [(place, value)]


def kind_of(cfg: dict) -> str:
    """The kind of target that a config has: ``'offset'`` or ``'gaussian'``."""
    has_offsets = any(_is_offset_codec(node) for _, node in nodes(cfg))
    return 'offset' if has_offsets else 'gaussian'


def _is_offset_codec(node: dict) -> bool:
    name = type_name(node)
    return name == 'UDPOffsetHeatmap' or (
        name == 'UDPHeatmap' and node.get('heatmap_type') == 'combined'
    )


def swap(cfg: dict, kind: str) -> Tuple[dict, List[Swap]]:
    """Swap what UDP swaps.

    Args:
        cfg: A stock top-down heatmap config, or a half-swapped one, as plain dicts
            and lists. It is left as it is.
        kind: ``'gaussian'`` or ``'offset'``.

    Returns:
        The swapped config, and what was swapped, without the copies of a top-level
        variable that the config has elsewhere. Nothing, if it is UDP throughout.

    Raises:
        UserError: It is no top-down heatmap config, or has a component for which
            there is no counterpart.
    """
    _check_is_topdown_heatmap(cfg)
    swapper = _Swapper(copy.deepcopy(cfg), kind)
    swapper.swap()
    _check_warps(swapper.cfg)
    return swapper.told(cfg)


def keep(cfg: dict) -> Tuple[dict, List[Swap]]:
    """Swap what leaves weights as they are: heads, and the estimator.

    Args, returns and errors are those of :func:`swap`; it is also an error if a head
    has a codec of this package, with which its weights are UDP's.
    """
    _check_is_topdown_heatmap(cfg)
    swapper = _Swapper(copy.deepcopy(cfg), 'kept')
    swapper.keep()
    return swapper.told(cfg)


def _places(cfg: dict) -> Iterator[str]:
    """The places of values that are no copies of a top-level variable or of others."""
    variables = [v for v in cfg.values() if isinstance(v, (dict, list)) and v]
    seen: List[Any] = []

    def visit(node: Any, place: str, known: List[Any]) -> Iterator[str]:
        if not isinstance(node, (dict, list, tuple)):
            yield place
        elif node not in known:
            yield place
            if isinstance(node, dict):
                for key, value in node.items():
                    yield from visit(value, f'{place}.{key}', variables + seen)
            else:
                # The transforms of two pipelines are alike, but no copies.
                for where, value in _each(node, place):
                    yield from visit(value, where, [])
            seen.append(node)

    for key, value in cfg.items():
        if value is not None:
            yield from visit(value, key, seen)


# --- refusals -------------------------------------------------------------------------


def _given(cfg: Any) -> str:
    """What a config has where a type was expected, for a message."""
    if not isinstance(cfg, dict):
        return 'none' if cfg is None else repr(cfg)
    cfg_type = cfg.get('type') or 'without a type'
    return cfg_type if isinstance(cfg_type, str) else cfg_type.__name__


def _check_counterpart(cfg: Any, what: str) -> None:
    """Refuse a codec that is not swapped."""
    if type_name(cfg) not in ALL_CODECS:
        raise UserError(
            f'{what} is {_given(cfg)}, for which there is no UDP counterpart; there is '
            f'one for {", ".join(STOCK_CODECS)}.'
        )


def _check_is_topdown_heatmap(cfg: dict) -> None:
    model = cfg.get('model')
    instead = '`udp-plugin list` shows configs that can be converted'
    if not isinstance(model, dict):
        raise UserError(
            f'It has no model, so it is a part of a config, not a config; {instead}.'
        )
    head = _given(model.get('head')).rpartition('.')[-1]
    for name in (type_name(model) or str(model.get('type')), head):
        for what, beginnings in OTHER_KINDS.items():
            if name.startswith(beginnings):
                raise UserError(
                    f'It is {what} config ({name}), and UDP here is for top-down '
                    f'heatmaps; {instead}.'
                )
        if any(type_name(node) in ALL_HEADS for _, node in nodes(model)):
            return
    raise UserError(
        f'Its head is {head}, for which there is no UDP counterpart; there is one for '
        f'{", ".join(HEADS)}.'
    )


#: The names of the transforms in pipelines, by the pipelines' places.
Pipelines = Dict[str, Set[Optional[str]]]


def _pipelines(
    dataset: dict, place: str, key: str = 'pipeline', after: Optional[Pipelines] = None
) -> Iterator[Pipelines]:
    """The pipelines that the samples of each data set go through.

    A wrapper's pipeline goes on where those of its data sets end.
    """
    names = {type_name(node) for _, node in nodes(dataset.get(key), place)}
    pipelines = {f'{place}.{key}': names, **(after or {})}
    inner = [
        each
        for name in ('dataset', 'datasets')
        for each in _each(dataset.get(name) or [], f'{place}.{name}')
    ]
    for where, one in inner:
        yield from _pipelines(one, where, after=pipelines)
    if not inner:
        yield pipelines


def _check_warps(cfg: dict) -> None:
    """Refuse data whose crops UDP's warp does not make."""
    found: List[Pipelines] = []
    for loader in LOADERS:
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        found += _pipelines(dataset, f'{loader}.dataset')
    for place, hook in nodes(cfg.get('custom_hooks'), 'custom_hooks'):
        found += _pipelines(hook, place, 'switch_pipeline')
    for pipelines in found:
        topdown = [p for p, names in pipelines.items() if not names.isdisjoint(TOPDOWN)]
        if topdown and 'TopDownAffineUDP' not in set().union(*pipelines.values()):
            raise UserError(
                f'{topdown[0]} has no TopdownAffine, so its crops would stay biased; '
                'let TopdownAffine (or TopDownAffineUDP) make them in the place of '
                'what does, and convert again.'
            )


# --- swaps ----------------------------------------------------------------------------


def _like(stock: Any, name: str) -> str:
    """A type's name, given as the stock type is: bare, with scope, or in full."""
    if not isinstance(stock, str) or stock.count('.') > 1:
        return f'{MODULES[name]}.{name}'
    return f'mmpose.{name}' if '.' in stock else name


class _Swapper:
    """Changes a config, and notes what it does."""

    def __init__(self, cfg: dict, kind: str) -> None:
        self.cfg = cfg
        self.kind = kind
        self.swaps: List[Swap] = []

    def swap(self) -> None:
        # Heads first: whether out_channels counts three channels a keypoint shows in
        # the stock codec.
        for place, node in nodes(self.cfg):
            name = type_name(node)
            if name in ALL_HEADS:
                self._head(node, name, place)
        for place, node in nodes(self.cfg):
            name = type_name(node)
            if name in ALL_CODECS:
                self._codec(node, name, place)
            elif name in TRANSFORMS:
                self._transform(node, name, place)
            if name in ('GenerateTarget', 'OffsetTargetGenerator'):
                for _, encoder in _each(node.get('encoder'), place):
                    _check_counterpart(encoder, f'The encoder of {place} ({name})')
            if node.get('shift_heatmap') is True and place.startswith('model'):
                why = 'mirrored maps coincide as they are'
                self._set(node, 'shift_heatmap', False, place, why)
        self._import()

    def keep(self) -> None:
        for place, node in nodes(self.cfg):
            name = type_name(node)
            if name in ALL_HEADS:
                codec = node.get('decoder')
                if type_name(codec) in CODECS.values():
                    raise UserError(
                        f'{place} has the codec {type_name(codec)}, so that its '
                        'weights are those of UDP already; --keep-weights is for '
                        f'weights trained with {", ".join(STOCK_CODECS)}.'
                    )
                _check_counterpart(codec, f'The codec of {place}')
            if name in kept_swaps():
                node['type'] = _like(node['type'], kept_swaps()[name])
                why = WHY_KEPT['head' if name in HEADS else 'estimator']
                why = WHY_KEPT.get(type_name(node.get('decoder')), why)
                self._note(place, name, kept_swaps()[name], why)
        if self.swaps:
            self._import()

    def told(self, stock: dict) -> Tuple[dict, List[Swap]]:
        """The swapped config, and what was swapped in the stock one, in its order."""
        places = ['custom_imports', *_places(stock)]
        order = {place: index for index, place in enumerate(places)}
        told = [swapped for swapped in self.swaps if swapped.place in order]
        return self.cfg, sorted(told, key=lambda swapped: order[swapped.place])

    def _note(self, place: str, stock: object, udp: object, why: str) -> None:
        self.swaps.append(Swap(place, str(stock), str(udp), why))

    def _set(self, node: dict, key: str, value: Any, place: str, why: str) -> None:
        if node.get(key) != value:
            self._note(f'{place}.{key}', node.get(key), value, why)
            node[key] = value

    def _codec(self, node: dict, name: str, place: str) -> None:
        codec = CODECS[self.kind]
        new = dict(node)
        if name != codec:
            new['type'] = _like(node['type'], codec)
        if 'heatmap_type' in node:
            types = {'gaussian': 'gaussian', 'offset': 'combined'}
            new['heatmap_type'] = types[self.kind]
        if node.get('unbiased') is False:
            new['unbiased'] = True
        if self.kind == 'gaussian':
            new.update(_sigma_of_disc(node))
            for key in ('radius', 'reading'):
                new.pop(key, None)
        if new != node:
            settings = [k for k in new if k != 'type' and node.get(k) != new[k]]
            changed = [f'{key}={new[key]!r}' for key in settings]
            changed += [f'without {key}' for key in node if key not in new]
            self._note(place, name, ', '.join([codec, *changed]), WHY[self.kind])
            node.clear()
            node.update(new)

    def _transform(self, node: dict, name: str, place: str) -> None:
        node['type'] = _like(node['type'], TRANSFORMS[name])
        stock = name
        if name == 'TopdownAffine' and 'use_udp' in node:
            stock += f', use_udp={node.pop("use_udp")}'
        self._note(place, stock, TRANSFORMS[name], WHY[name])

    def _head(self, node: dict, name: str, place: str) -> None:
        decoder = node.get('decoder')
        _check_counterpart(decoder, f'The codec of {place}')
        if self.kind == 'offset' and node.get('use_prm'):
            raise UserError(
                f'{place} has use_prm=True, whose ReLU lets no offset be negative; use '
                '--codec gaussian.'
            )
        if name in HEADS:
            node['type'] = _like(node['type'], HEADS[name])
            why = 'channels, loss and flip test as its codec asks'
            self._note(place, name, HEADS[name], why)
        if node.get('loss') is not None:
            if self.kind == 'gaussian' and decoder.get('heatmap_type') == 'combined':
                why = 'a Gaussian has one map a keypoint'
                self._set(node, 'out_channels', _keypoints(node, place), place, why)
            for where, loss in _each(node['loss'], f'{place}.loss'):
                self._loss(loss, where)
        if node.get('final_layer', {}) is None:
            self._fit_backbone(node, place)

    def _loss(self, loss: dict, place: str) -> None:
        name = new = type_name(loss)
        if self.kind == 'gaussian':
            if name not in OFFSET_LOSSES:
                return
            new = 'KeypointOHKMMSELoss' if loss.get('topk') else 'KeypointMSELoss'
            why = 'a Gaussian has one map a keypoint'
        elif name in REPLACED_LOSSES:
            why = 'settings that mean nothing on offset maps'
        elif name in GAUSSIAN_LOSSES:
            new, why = 'UDPOffsetLoss', GAUSSIAN_LOSSES[name]
        else:
            got = loss.get('type') if isinstance(loss, dict) else loss
            raise UserError(
                f'The loss of {place.rpartition(".loss")[0]} is {got}, of which it is '
                'not known what it means on offset maps; use --codec gaussian, which '
                'keeps it.'
            )
        settings = ('type', '_scope_', *LOSS_SETTINGS, *REPLACED_LOSSES[new])
        kept = {k: v for k, v in loss.items() if k in settings or v is False}
        udp = f'{name}, without ' + ', '.join(k for k in loss if k not in kept)
        if new != name:
            kept = {k: v for k, v in kept.items() if k in settings and v is not None}
            udp, kept['type'] = new, _like(loss['type'], new)
        if kept != loss:
            self._note(place, name, udp, why)
            loss.clear()
            loss.update(kept)

    def _fit_backbone(self, head: dict, place: str) -> None:
        """Let the backbone make the codec's maps, where the head adds no layer."""
        maps = _keypoints(head, place) * MAPS[self.kind]
        layers = head.get('conv_out_channels') or head.get('deconv_out_channels')
        channels = layers[-1] if layers else head.get('in_channels')
        if channels == maps:
            return
        backbone = self.cfg['model'].get('backbone') or {}
        # The head of a variable of the config's may have changed it already.
        if layers or backbone.get('out_channels') not in (channels, maps):
            raise UserError(
                f'{place} has final_layer=None, so the {channels} channels that its '
                f'last layer or the backbone makes are its maps, of which there have '
                f'to be {maps}; change these, or use --codec {OTHER[self.kind]}.'
            )
        each = {'gaussian': 'one', 'offset': 'three'}[self.kind]
        why = f'the backbone makes the maps, {each} a keypoint'
        self._set(backbone, 'out_channels', maps, 'model.backbone', why)
        self._set(head, 'in_channels', maps, place, why)

    def _import(self) -> None:
        nothing = {'imports': [], 'allow_failed_imports': False}
        found = self.cfg.get('custom_imports') or nothing
        imports = (found.get('imports') or []) if isinstance(found, dict) else None
        imports = [imports] if isinstance(imports, str) else imports
        if not is_seq_of(imports, str):
            raise UserError(
                "custom_imports must be a dict such as dict(imports=['mine'], "
                f'allow_failed_imports=False), got {found!r}.'
            )
        if 'udp_plugin' not in imports:
            new = [*imports, 'udp_plugin']
            self.cfg['custom_imports'] = {**found, 'imports': new}
            before, after = ', '.join(imports) or 'none', ', '.join(new)
            self._note('custom_imports', before, after, 'registers the names')


def _sigma_of_disc(node: dict) -> Dict[str, float]:
    """The sigma to write for the Gaussian that an offset codec's disc replaces."""
    has_sigma = node.get('sigma') is not None or node.get('kernel_size') is not None
    if has_sigma or not _is_offset_codec(node):
        return {}
    keys = ('input_size', 'heatmap_size', 'radius', 'radius_factor')
    try:
        codec = UDPOffsetHeatmap(**{key: node.get(key) for key in keys})
    except ValueError:
        # It is said when the codec is built.
        return {}
    sigma = round(codec.radius / F.RADIUS_PER_SIGMA, 4)
    # That of UDPGaussianHeatmap itself need not be written.
    return {} if sigma == 2 else {'sigma': sigma}


def _keypoints(head: dict, place: str) -> int:
    """The number of keypoints of a head whose codec is not swapped yet."""
    loss = head.get('loss') or {'type': 'KeypointMSELoss'}
    try:
        return number_of_keypoints(
            head.get('out_channels'), loss, head['decoder'], place
        )
    except ValueError as error:
        raise UserError(f'{error}.') from error
