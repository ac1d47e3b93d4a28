"""Turns checkpoints of the original repositories into MMPose's, by their keys.

The repositories of SimpleBaseline, HRNet, DARK and UDP-Pose call the layers of a
network what MMPose calls them inside its backbone and its head. MMPose 0.x, with which
UDP-Pose has weights, too, calls the head ``keypoint_head``. HRNets of UDP-Pose's own
repository are wider in the end, see :class:`.models.backbones.UDPPoseHRNet`.
"""

import io
import shlex
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import torch
from mmengine.config import Config
from mmpose.utils import register_all_modules
from torch import Tensor

from .audit.parts import network_of
from .convert.zoo import zoo_folder
from .errors import UserError
from .files import write_bytes
from .weights import read_weights

#: The names of parts, or their beginnings, as the repositories have them.
BACKBONE = ('conv1', 'conv2', 'bn1', 'bn2', 'layer', 'transition', 'stage')
HEAD = ('deconv_layers', 'final_layer')
#: Data sets of the zoo by their number of keypoints.
DATA_SETS = {17: 'coco', 16: 'mpii'}
#: Depths of ResNets by the number of blocks in their four layers.
DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
FINAL = 'head.final_layer.weight'
#: Only where the last fusion is wider than the finest branch.
WIDE = 'backbone.stage4.2.fuse_layers.0.0.0.weight'
COUNT = 'num_batches_tracked'
#: How many keys a message lists.
LISTED = 4
KNOWN = (
    'HRNet-W32 and W48 and ResNet-50, 101 and 152 with three deconvolutions, of the '
    'repositories of SimpleBaseline, HRNet, DARK and UDP-Pose and of MMPose 0.x'
)


class Imported(NamedTuple):
    """What became of a checkpoint.

    Attributes:
        weights: By MMPose 1.x's names.
        network: ``'hrnet-w32'``, say, as in the names of the zoo's configs.
        configs: Names of the zoo's configs with this network and data set, which differ
            in their input size.
        keypoints: Their number.
        maps: Of each keypoint: 1, or 3 with offsets.
        bgr: Whether the network takes colours in this order, not as RGB.
        changes: What must be set in the config for the network, by full name.
    """

    weights: Dict[str, Tensor]
    network: str
    configs: List[str]
    keypoints: int
    maps: int
    bgr: bool
    changes: Dict[str, Any]


def toolbox_name(name: str) -> str:
    """What MMPose 1.x calls a weight; the same if it is of neither layout.

    Example:
        >>> toolbox_name('final_layer.bias'), toolbox_name('layer1.0.conv1.weight')
        ('head.final_layer.bias', 'backbone.layer1.0.conv1.weight')
    """
    if name.startswith('keypoint_head.'):
        return name.partition('_')[2]
    for part, names in (('backbone', BACKBONE), ('head', HEAD)):
        if name.startswith(names):
            return f'{part}.{name}'
    return name


def import_weights(file: Path) -> Imported:
    """Read a checkpoint of one of the repositories.

    Raises:
        UserError: It is none, or does not fit; names keys.
    """
    try:
        weights = read_weights(file)
    except Exception as error:
        raise UserError(
            f'FILE {file} cannot be read as a checkpoint of PyTorch: {error}'
        ) from error
    if any(name.startswith('head.') for name in weights):
        raise UserError(f'FILE {file} has the names of MMPose 1.x; use it as it is')
    names = {toolbox_name(name): name for name in weights}
    state = {name: weights[theirs] for name, theirs in names.items()}
    network = _network(state)
    channels = _outputs(state, FINAL)
    if not network or not channels:
        keys = ', '.join(list(weights)[:LISTED]) or 'no weights'
        found = f'is none of {KNOWN}: its keys begin with {keys}'
        if network:
            found = 'has no final_layer.weight, which makes the maps; it may be the '
            found += 'pretrained weights of a backbone alone'
        raise UserError(f'FILE {file} {found}')
    of_maps = {count * maps: (count, maps) for count in DATA_SETS for maps in (1, 3)}
    if channels not in of_maps:
        raise UserError(
            f'FILE {file} makes {channels} maps ({names[FINAL]}); the networks that '
            f'are known make {", ".join(map(str, sorted(of_maps)))}: one map a '
            'keypoint of MPII or COCO, or three'
        )
    keypoints, maps = of_maps[channels]
    configs = _configs(network, DATA_SETS[keypoints])
    cfg = Config.fromfile(zoo_folder() / f'{configs[0]}.py')
    changes: Dict[str, Any] = {}
    if WIDE in state:
        changes['model.backbone.type'] = 'UDPPoseHRNet'
        changes['model.head.in_channels'] = _outputs(state, WIDE)
    cfg.merge_from_dict({**changes, 'model.head.out_channels': channels})
    register_all_modules()
    expected = network_of(cfg).state_dict()
    try:
        weights = fitted(state, expected, names)
    except ValueError as error:
        last = configs[0].rpartition('/')[-1]
        raise UserError(f'FILE {file} does not fit {last}: {error}') from error
    # MMPose 0.x has all of its networks take RGB.
    bgr = network.startswith('res') and names[FINAL].startswith('final_layer')
    last = [name.rpartition('/')[-1] for name in configs]
    return Imported(weights, network, last, keypoints, maps, bgr, changes)


def fitted(
    state: Dict[str, Tensor], expected: Dict[str, Tensor], names: Dict[str, str]
) -> Dict[str, Tensor]:
    """Weights in a model's own order, if they are those of the model.

    Args:
        state: Weights by MMPose 1.x's names; counts of batches may be missing,
            since torch before 0.4.1 did not have them.
        expected: The model's, of which the shapes are read.
        names: What the file calls them, for messages.

    Raises:
        ValueError: Weights are unexpected, missing, of another shape, or broken.
    """
    counts = {name: torch.tensor(0) for name in expected if name.endswith(COUNT)}
    state = {**counts, **state}
    shapes = {name: tuple(each.shape) for name, each in state.items()}
    another = [
        f'{names[name]} {shapes[name]} instead of {tuple(each.shape)}'
        for name, each in expected.items()
        if name in shapes and shapes[name] != each.shape
    ]
    unexpected = [names[name] for name in state if name not in expected]
    missing = [name for name in expected if name not in state]
    broken = [names.get(n, n) for n, each in state.items() if not each.isfinite().all()]
    problems = {
        'unexpected': unexpected,
        'missing (as MMPose calls them)': missing,
        'of another shape': another,
        'NaN or infinite': broken,
    }
    found = [f'{what}: {_listed(keys)}' for what, keys in problems.items() if keys]
    if found:
        raise ValueError('keys are ' + '; '.join(found))
    return {name: state[name].detach() for name in expected}


def write(path: Path, found: Imported) -> None:
    """Write weights as a checkpoint that MMPose loads.

    Raises:
        UserError: It cannot be written.
    """
    content = io.BytesIO()
    # Contiguous and apart, since views would be written with all that they view.
    weights = {name: each.clone() for name, each in found.weights.items()}
    torch.save(dict(meta={}, state_dict=weights), content)
    write_bytes(path, content.getvalue())


def usage(found: Imported, path: Path) -> str:
    """What a checkpoint is, and the commands to go on with, as lines."""
    config = found.configs[0]
    convert = f'udp-plugin convert {config}'
    lines = [
        f'It has {found.network}, {found.keypoints} keypoints and {found.maps} '
        f'map{"s" * (found.maps > 1)} a keypoint, as:',
        *(f'  {name}' for name in found.configs),
    ]
    if len(found.configs) > 1:
        lines.append(
            'Weights do not tell the input size: take the one they were trained with.'
        )
    if found.maps == 3:
        lines += [
            'They were trained with offsets, by unit length:',
            f'  {convert} --codec offset',
            "Their unit is the codec's radius: 3.5 heatmap px at 48x64, as UDPv1 and "
            'MMPose have it; weights of UDP-Pose with KPD 4.0 need radius=4.0 in it.',
        ]
    elif found.changes:
        lines += [
            'They are of UDP-Pose, trained by unit length:',
            f'  {convert} --codec gaussian',
        ]
    else:
        audit = f'udp-plugin audit {config} --checkpoint {shlex.quote(str(path))}'
        if found.keypoints != 17:
            # It draws figures of these alone.
            audit += ' --ann FILE --img DIR'
        lines += [
            'Weights of SimpleBaseline, HRNet and DARK were trained by pixels, biased:',
            f'  {convert} --keep-weights',
            'Those of UDP-Pose, by unit length:',
            f'  {convert} --codec gaussian',
            'Which it was is told by:',
            f'  {audit}',
        ]
    if found.changes:
        options = (f'{name}={value}' for name, value in found.changes.items())
        lines += [
            'The network is wider in the end, as UDP-Pose has it. Set in the converted '
            'config, or with --cfg-options:',
            f'  {" ".join(options)}',
        ]
    if found.bgr:
        lines.append(
            'These repositories have ResNets take BGR: test with --cfg-options '
            'model.data_preprocessor.bgr_to_rgb=False, or set it in the config; those '
            "with caffe in their names need model.backbone.style='caffe', too."
        )
    return '\n'.join(lines)


def _network(state: Dict[str, Tensor]) -> str:
    """What the zoo's configs call the network; empty if it is none that is known."""
    width = _outputs(state, 'backbone.transition1.0.0.weight')
    if width:
        return f'hrnet-w{width}' if width in (32, 48) else ''
    depth = DEPTHS.get(_blocks(state))
    return f'res{depth}' if depth else ''


def _outputs(state: Dict[str, Tensor], name: str) -> int:
    """The number of channels that a layer makes; 0 if there is no such weight."""
    return sum(state[name].shape[:1]) if name in state else 0


def _blocks(state: Dict[str, Tensor]) -> Tuple[int, ...]:
    """The number of blocks in each of a ResNet's layers."""
    layers = [f'backbone.layer{number}.' for number in range(1, 5)]
    names = [name for name in state if name.endswith('.conv3.weight')]
    return tuple(sum(name.startswith(layer) for name in names) for layer in layers)


def _configs(network: str, data_set: str) -> List[str]:
    """The zoo's plain configs of a network and a data set, by input size."""
    folder = zoo_folder()
    pattern = (
        f'body_2d_keypoint/topdown_heatmap/{data_set}/'
        f'td-hm_{network}_8xb*-210e_{data_set}-[0-9]*.py'
    )
    names = (path.relative_to(folder).as_posix()[:-3] for path in folder.glob(pattern))
    configs = sorted(names, key=lambda name: name.rpartition('-')[-1])
    if not configs:
        raise UserError(f"MMPose's zoo has no config of {network} for {data_set}")
    return configs


def _listed(keys: List[str]) -> str:
    more = f' and {len(keys) - LISTED} more' if len(keys) > LISTED else ''
    return ', '.join(keys[:LISTED]) + more
