"""What is swapped in a config, and why: a function on plain dicts."""

import copy
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from udp_plugin import functional as F
from udp_plugin.codecs import UDPOffsetHeatmap
from udp_plugin.models.heads.base import (
    OFFSET_LOSSES,
    REPLACED_LOSSES,
    number_of_keypoints,
    type_name,
)
from udp_plugin.ui import UserError

CODECS = {'gaussian': 'UDPGaussianHeatmap', 'offset': 'UDPOffsetHeatmap'}
STOCK_CODECS = ('MSRAHeatmap', 'MegviiHeatmap', 'UDPHeatmap')
HEADS = {
    'HeatmapHead': 'UDPHeatmapHead',
    'ViPNASHead': 'UDPViPNASHead',
    'CPMHead': 'UDPCPMHead',
    'MSPNHead': 'UDPMSPNHead',
}
TRANSFORMS = {
    'TopdownAffine': 'TopDownAffineUDP',
    'GenerateTarget': 'OffsetTargetGenerator',
}
#: The settings that every loss has.
LOSS_SETTINGS = ('use_target_weight', 'loss_weight')
#: Losses of Gaussian heatmaps only.
GAUSSIAN_LOSSES = {
    'AdaptiveWingLoss': 'shaped for the slope of a Gaussian; a disc has none',
    'FocalHeatmapLoss': 'weighs a Gaussian by its height; a disc has one height',
}
#: The transforms that have an encoder.
TARGETS = ('GenerateTarget', 'OffsetTargetGenerator')
#: By these a pipeline is known to be one of top-down crops.
TOPDOWN = ('GetBBoxCenterScale', 'PackPoseInputs')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Only the offset codec has these.
OFFSET_SETTINGS = ('radius', 'reading')

#: The modules of this package that have them, for types given as classes.
MODULES = {
    **dict.fromkeys(CODECS.values(), 'udp_plugin.codecs'),
    **dict.fromkeys(HEADS.values(), 'udp_plugin.models.heads'),
    **dict.fromkeys(TRANSFORMS.values(), 'udp_plugin.datasets.transforms'),
    'UDPOffsetLoss': 'udp_plugin.models.losses',
    'KeypointMSELoss': 'mmpose.models.losses',
    'KeypointOHKMMSELoss': 'mmpose.models.losses',
}

#: What to say of other kinds of configs, by a part of the head's name.
OTHER_HEADS = {
    'SimCC': 'a SimCC',
    'RTMCC': 'a SimCC (RTMPose)',
    'RTMW': 'a SimCC (RTMW)',
    'Regression': 'a regression',
    'RLE': 'a regression',
    'DSNT': 'an integral regression',
    'MotionRegression': 'a 3-D regression',
    'Trajectory': 'a 3-D regression',
    'Temporal': 'a 3-D regression',
    'Internet': 'a 3-D hand',
    'AssociativeEmbedding': 'a bottom-up',
    'CID': 'a bottom-up',
    'DEKR': 'a bottom-up',
    'YOLOX': 'a one-stage',
    'RTMO': 'a one-stage',
    'EDPose': 'a one-stage',
}
OTHER_MODELS = {
    'BottomupPoseEstimator': 'a bottom-up',
    'PoseLifter': 'a 3-D lifting',
    'DWPoseDistiller': 'a distillation',
}


class Swap(NamedTuple):
    """One thing swapped: where, what was there, what is, and why."""

    place: str
    stock: str
    udp: str
    why: str


def _like(stock: Any, name: str) -> str:
    """A type's name, given as the stock type is: bare, with scope, or in full."""
    if not isinstance(stock, str) or stock.count('.') > 1:
        return f'{MODULES[name]}.{name}'
    return f'mmpose.{name}' if '.' in stock else name


def with_full_names(cfg: Any) -> Any:
    """A copy in which the types of this package are the full names of classes."""
    if isinstance(cfg, dict):
        cfg = {key: with_full_names(value) for key, value in cfg.items()}
        name = type_name(cfg)
        if name in MODULES and MODULES[name].startswith('udp_plugin'):
            cfg['type'] = f'{MODULES[name]}.{name}'
        return cfg
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(with_full_names(value) for value in cfg)
    return cfg


def nodes(cfg: Any, place: str = '') -> Iterator[Tuple[str, dict]]:
    """All dicts of a config with their places, outer ones first."""
    if isinstance(cfg, dict):
        if place:
            yield place, cfg
        for key, value in cfg.items():
            dotted = f'{place}.{key}' if place else str(key)
            yield from nodes(value, dotted)
    elif isinstance(cfg, (list, tuple)):
        for index, value in enumerate(cfg):
            yield from nodes(value, f'{place}[{index}]')


def kind_of(cfg: dict) -> str:
    """The kind of target that a config has: ``'offset'`` or ``'gaussian'``."""
    for _, node in nodes(cfg):
        if _is_offset_codec(node):
            return 'offset'
    return 'gaussian'


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
    stock, cfg = cfg, copy.deepcopy(cfg)
    swaps: List[Swap] = []
    # Heads first: whether out_channels counts three channels a keypoint shows in
    # the stock codec.
    for place, node in nodes(cfg):
        name = type_name(node)
        if name in HEADS or name in HEADS.values():
            _swap_head(node, name, kind, place, swaps)
            if node.get('final_layer', {}) is None:
                _fit_backbone(cfg['model'], node, kind, place, swaps)
    for place, node in nodes(cfg):
        name = type_name(node)
        if name in STOCK_CODECS or name in CODECS.values():
            _swap_codec(node, name, kind, place, swaps)
        elif name in TRANSFORMS:
            _swap_transform(node, name, place, swaps)
        if name in TARGETS:
            _check_encoders(node, name, place)
        if node.get('shift_heatmap') is True and place.startswith('model'):
            node['shift_heatmap'] = False
            swaps.append(
                Swap(
                    f'{place}.shift_heatmap',
                    'True',
                    'False',
                    'mirrored maps coincide as they are',
                )
            )
    _check_warps(cfg)
    _add_import(cfg, swaps)
    return cfg, _without_copies(stock, swaps)


def _check_is_topdown_heatmap(cfg: dict) -> None:
    model = cfg.get('model')
    instead = '`udp-plugin list` shows configs that can be converted'
    if not isinstance(model, dict):
        raise UserError(
            f'It has no model, so it is a part of a config, not a config; {instead}.'
        )
    name = type_name(model) or str(model.get('type'))
    if name in OTHER_MODELS:
        raise UserError(
            f'It is {OTHER_MODELS[name]} config ({name}), and UDP here is for top-down '
            f'heatmaps; {instead}.'
        )
    heads = {type_name(node) for _, node in nodes(model)}
    if not heads & {*HEADS, *HEADS.values()}:
        head = model.get('head')
        name = (head.get('type') if isinstance(head, dict) else None) or 'none'
        name = (name if isinstance(name, str) else name.__name__).rpartition('.')[-1]
        for part, what in OTHER_HEADS.items():
            if name.startswith(part):
                raise UserError(
                    f'It is {what} config ({name}), and UDP here is for top-down '
                    f'heatmaps; {instead}.'
                )
        raise UserError(
            f'Its head is {name}, for which there is no UDP counterpart; there is one '
            f'for {", ".join(HEADS)}.'
        )


def _check_encoders(node: dict, name: str, place: str) -> None:
    """Refuse a target of a codec that is not swapped."""
    encoders = node.get('encoder')
    for encoder in encoders if isinstance(encoders, (list, tuple)) else [encoders]:
        if type_name(encoder) not in (*STOCK_CODECS, *CODECS.values()):
            raise UserError(
                f'The encoder of {place} ({name}) is {_given(encoder)}, for which '
                'there is no UDP counterpart; there is one for '
                f'{", ".join(STOCK_CODECS)}.'
            )


def _check_warps(cfg: dict) -> None:
    """Refuse data whose crops UDP's warp does not make."""

    def check(dataset: Any, place: str, after: List[Tuple[str, Any]]) -> None:
        # A wrapper's pipeline goes on where those of its data sets end.
        if not isinstance(dataset, dict):
            return
        pipelines = [(f'{place}.pipeline', dataset.get('pipeline') or []), *after]
        inner = dataset.get('dataset') or dataset.get('datasets')
        if isinstance(inner, (list, tuple)):
            for index, one in enumerate(inner):
                check(one, f'{place}.datasets[{index}]', pipelines)
        elif inner:
            check(inner, f'{place}.dataset', pipelines)
        else:
            check_pipelines(pipelines)

    def check_pipelines(pipelines: List[Tuple[str, Any]]) -> None:
        names = {
            where: {type_name(node) for _, node in nodes(pipeline, where)}
            for where, pipeline in pipelines
        }
        found = set().union(*names.values())
        if found.isdisjoint(TOPDOWN) or 'TopDownAffineUDP' in found:
            return
        place = next(where for where in names if not names[where].isdisjoint(TOPDOWN))
        raise UserError(
            f'{place} has no TopdownAffine, so its crops would stay biased; let '
            'TopdownAffine (or TopDownAffineUDP) make them in the place of what does, '
            'and convert again.'
        )

    for loader in LOADERS:
        check((cfg.get(loader) or {}).get('dataset'), f'{loader}.dataset', [])
    for place, node in nodes(cfg.get('custom_hooks') or [], 'custom_hooks'):
        if node.get('switch_pipeline'):
            where = f'{place}.switch_pipeline'
            check_pipelines([(where, node['switch_pipeline'])])


def _given(cfg: Any) -> str:
    """What a config has where a type was expected, for a message."""
    if not isinstance(cfg, dict):
        return 'none' if cfg is None else repr(cfg)
    cfg_type = cfg.get('type') or 'without a type'
    return cfg_type if isinstance(cfg_type, str) else cfg_type.__name__


def _swap_codec(node: dict, name: str, kind: str, place: str, swaps: list) -> None:
    codec = CODECS[kind]
    changed = []
    sigma = _sigma_of_disc(node) if _is_offset_codec(node) else None
    if name != codec:
        node['type'] = _like(node['type'], codec)
    heatmap_type = {'gaussian': 'gaussian', 'offset': 'combined'}[kind]
    if node.get('heatmap_type', heatmap_type) != heatmap_type:
        node['heatmap_type'] = heatmap_type
        changed.append(f'heatmap_type={heatmap_type!r}')
    if node.get('unbiased') is False:
        node['unbiased'] = True
        changed.append('unbiased=True')
    if kind == 'gaussian':
        if sigma is not None:
            node['sigma'] = sigma
            changed.append(f'sigma={sigma}')
        for key in OFFSET_SETTINGS:
            if key in node:
                del node[key]
                changed.append(f'without {key}')
    if name == codec and not changed:
        return
    why = {
        'gaussian': 'sub-pixel Gaussian, decoded in batches by DARK',
        'offset': 'disc and offsets, Eq. 24-26 and 29; decoded in batches',
    }[kind]
    swaps.append(Swap(place, name, ', '.join([codec, *changed]), why))


def _sigma_of_disc(node: dict) -> Optional[float]:
    """The sigma to write for the Gaussian that an offset codec's disc replaces."""
    if node.get('sigma') is not None or node.get('kernel_size') is not None:
        return None
    keys = ('input_size', 'heatmap_size', 'radius', 'radius_factor')
    try:
        codec = UDPOffsetHeatmap(**{key: node.get(key) for key in keys})
    except ValueError:
        # It is said when the codec is built.
        return None
    sigma = round(codec.radius / F.RADIUS_PER_SIGMA, 4)
    # That of UDPGaussianHeatmap itself need not be written.
    return None if sigma == 2 else sigma


def _swap_transform(node: dict, name: str, place: str, swaps: list) -> None:
    node['type'] = _like(node['type'], TRANSFORMS[name])
    if name == 'TopdownAffine':
        stock = name
        if 'use_udp' in node:
            stock += f', use_udp={node.pop("use_udp")}'
        why = 'warps by unit lengths, Eq. 41'
    else:
        stock, why = name, 'target of its codec'
    swaps.append(Swap(place, stock, TRANSFORMS[name], why))


def _swap_head(node: dict, name: str, kind: str, place: str, swaps: list) -> None:
    decoder = node.get('decoder')
    known = {*STOCK_CODECS, *CODECS.values()}
    if type_name(decoder) not in known:
        raise UserError(
            f'The codec of {place} is {_given(decoder)}, for which there is no UDP '
            f'counterpart; there is one for {", ".join(STOCK_CODECS)}.'
        )
    if kind == 'offset' and node.get('use_prm'):
        raise UserError(
            f'{place} has use_prm=True, whose ReLU lets no offset be negative; use '
            '--codec gaussian.'
        )
    if name in HEADS:
        node['type'] = _like(node['type'], HEADS[name])
        why = 'channels, loss and flip test as its codec asks'
        swaps.append(Swap(place, name, HEADS[name], why))

    losses = node.get('loss')
    if losses is None:
        return
    several = isinstance(losses, (list, tuple))
    given = list(losses) if several else [losses]
    if kind == 'gaussian':
        if decoder.get('heatmap_type') == 'combined':
            channels, keypoints = node.get('out_channels'), _keypoints(node, place)
            if keypoints != channels:
                node['out_channels'] = keypoints
                swaps.append(
                    Swap(
                        f'{place}.out_channels',
                        str(channels),
                        str(keypoints),
                        'a Gaussian has one map a keypoint',
                    )
                )
        swap_loss = _gaussian_loss
    else:
        swap_loss = _offset_loss
    swapped = []
    for index, loss in enumerate(given):
        where = f'{place}.loss[{index}]' if several else f'{place}.loss'
        new, why = swap_loss(loss, where)
        swapped.append(new)
        if new != loss:
            udp = new['type'].rpartition('.')[-1]
            stock = type_name(loss)
            if stock == udp:
                gone = [key for key in loss if key not in new]
                udp += ', without ' + ', '.join(gone)
            swaps.append(Swap(where, stock, udp, why))
    if swapped != given:
        node['loss'] = swapped if several else swapped[0]


def _keypoints(head: dict, place: str) -> int:
    """The number of keypoints of a head whose codec is not swapped yet."""
    try:
        return number_of_keypoints(
            head.get('out_channels'),
            head.get('loss') or {'type': 'KeypointMSELoss'},
            head['decoder'],
            place,
        )
    except ValueError as error:
        raise UserError(f'{error}.') from error


def _fit_backbone(model: dict, head: dict, kind: str, place: str, swaps: list) -> None:
    """Let the backbone make the codec's maps, where the head adds no layer."""
    maps = _keypoints(head, place) * {'gaussian': 1, 'offset': 3}[kind]
    layers = head.get('conv_out_channels') or head.get('deconv_out_channels')
    channels = layers[-1] if layers else head.get('in_channels')
    if channels == maps:
        return
    other = {'gaussian': 'offset', 'offset': 'gaussian'}[kind]
    if layers:
        raise UserError(
            f'{place} has final_layer=None, so its last layer makes the maps, of which '
            f'there have to be {maps}, not {channels}; change its channels and '
            f'final_layer, or use --codec {other}.'
        )
    backbone = model.get('backbone') or {}
    # The head of a variable of the config's may have changed it already.
    if backbone.get('out_channels') not in (channels, maps):
        raise UserError(
            f'{place} has final_layer=None, so the {channels} channels that it is '
            f'given are its maps, of which there have to be {maps}; change what is '
            f'before it, or use --codec {other}.'
        )
    each = {'gaussian': 'one', 'offset': 'three'}[kind]
    why = f'the backbone makes the maps, {each} a keypoint'
    for node, key, where in (
        (backbone, 'out_channels', 'model.backbone'),
        (head, 'in_channels', place),
    ):
        if node[key] != maps:
            swaps.append(Swap(f'{where}.{key}', str(node[key]), str(maps), why))
            node[key] = maps


def _gaussian_loss(loss: dict, place: str) -> Tuple[dict, str]:
    if type_name(loss) not in OFFSET_LOSSES:
        return loss, ''
    name = 'KeypointOHKMMSELoss' if loss.get('topk') else 'KeypointMSELoss'
    settings = (*LOSS_SETTINGS, *REPLACED_LOSSES[name])
    kept = {k: v for k, v in loss.items() if k in settings and v is not None}
    name = _like(loss['type'], name)
    return {'type': name, **kept}, 'a Gaussian has one map a keypoint'


def _offset_loss(loss: dict, place: str) -> Tuple[dict, str]:
    name = type_name(loss)
    if name in REPLACED_LOSSES:
        settings = ('type', '_scope_', *LOSS_SETTINGS, *REPLACED_LOSSES[name])
        kept = {k: v for k, v in loss.items() if k in settings or v is False}
        return kept, 'settings that mean nothing on offset maps'
    if name in GAUSSIAN_LOSSES:
        kept = {k: v for k, v in loss.items() if k in LOSS_SETTINGS}
        return {'type': _like(loss['type'], 'UDPOffsetLoss'), **kept}, GAUSSIAN_LOSSES[
            name
        ]
    got = loss.get('type') if isinstance(loss, dict) else loss
    raise UserError(
        f'The loss of {place.rpartition(".loss")[0]} is {got}, of which it is not '
        'known what it means on offset maps; use --codec gaussian, which keeps it.'
    )


def _add_import(cfg: Dict[str, Any], swaps: list) -> None:
    found = cfg.get('custom_imports') or {'imports': [], 'allow_failed_imports': False}
    imports = (found.get('imports') or []) if isinstance(found, dict) else None
    imports = [imports] if isinstance(imports, str) else imports
    if not isinstance(imports, (list, tuple)) or not all(
        isinstance(name, str) for name in imports
    ):
        raise UserError(
            "custom_imports must be a dict such as dict(imports=['mine'], "
            f'allow_failed_imports=False), got {found!r}.'
        )
    imports = list(imports)
    if 'udp_plugin' not in imports:
        before = ', '.join(imports) or 'none'
        imports.append('udp_plugin')
        cfg['custom_imports'] = {**found, 'imports': imports}
        why = 'registers the names'
        swaps.append(Swap('custom_imports', before, ', '.join(imports), why))


def _without_copies(stock: dict, swaps: List[Swap]) -> List[Swap]:
    """In the config's order, without those in copies of what has others.

    A value that the config has as a top-level variable is shown there.
    """
    order = {place: index for index, (place, _) in enumerate(nodes(stock))}

    def position(swap: Swap) -> int:
        place = swap.place
        return order.get(place, order.get(place.rpartition('.')[0], -1))

    def has_swaps(place: str) -> bool:
        starts = (f'{place}.', f'{place}[')
        return any(s.place == place or s.place.startswith(starts) for s in swaps)

    seen: List[Any] = []
    copies: List[str] = []

    def visit(node: Any, place: str, copy_of: List[Any]) -> None:
        if not isinstance(node, (dict, list, tuple)) or not has_swaps(place):
            return
        if node in copy_of:
            copies.append(place)
            return
        if isinstance(node, dict):
            for key, value in node.items():
                visit(value, f'{place}.{key}', variables + seen)
        else:
            # The transforms of two pipelines are alike, but no copies.
            for index, value in enumerate(node):
                visit(value, f'{place}[{index}]', [])
        seen.append(node)

    variables = [v for v in stock.values() if isinstance(v, (dict, list)) and v]
    for key, value in stock.items():
        visit(value, key, seen)
    starts = tuple(place + end for place in copies for end in ('.', '['))
    kept = [
        s for s in swaps if s.place not in copies and not s.place.startswith(starts)
    ]
    return sorted(kept, key=position)
