"""Every top-down heatmap config of MMPose's zoo under UDP, in a table.

Each config is swapped in two ways, by renaming types alone and as ``udp-plugin
convert`` does it, for both codecs. The results are built, take a training step, and
make a flip-tested prediction (:func:`udp_plugin.convert.check.check`). Converted with
its weights kept, a config has to have the stock model's layers, and to predict. Run it
by::

    make zoo                          # all, some 50 minutes on two cores; resumes
    make zoo ARGS="--only vipnas"     # those whose name has this
    make zoo ARGS="--column kept"     # of the columns, those whose name has this

It writes ``docs/zoo.md``, and what it found of each config to
``work_dirs/zoo_sweep.jsonl``, from which it resumes; delete that to begin anew.
"""

import argparse
import json
import multiprocessing
import os
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, List, Tuple

import jinja2
import mmpose
import numpy as np
import torch
from helpers import swap_names, zoo_config
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpose.registry import MODELS
from mmpose.utils import register_all_modules

from udp_plugin.audit.parts import network_of, replaced
from udp_plugin.convert.check import Checked, check, sample_of_noise
from udp_plugin.convert.swaps import keep, swap
from udp_plugin.convert.zoo import convertible
from udp_plugin.errors import ends_in_words, say_error
from udp_plugin.names import CODECS
from udp_plugin.ui import progress, quiet, say

PROJECT = Path(__file__).resolve().parents[1]
FOUND = PROJECT / 'work_dirs' / 'zoo_sweep.jsonl'
TEMPLATE = PROJECT / 'tests' / 'zoo.md.j2'
TABLE = PROJECT / 'docs' / 'zoo.md'
#: How a config is swapped, and to which codec: the stock one, with weights kept.
KEPT = 'convert, kept'
COLUMNS = ['names, gaussian', 'names, offset', 'convert, gaussian', 'convert, offset']
COLUMNS += [KEPT]
#: Of a config without the flip test, another backbone, or a step left out.
MARKS = '†§‡'
#: Models of which two at once would not fit into 24 GiB.
LARGE = 'huge'
#: Longest that a config may take, in seconds.
PATIENCE = 1200


def stock_config(name: str) -> Config:
    """A zoo config, as it can be built today."""
    stock = zoo_config(name)
    backbone = stock.model.backbone
    if backbone.type.startswith('mmcls.'):
        backbone.type = backbone.type.replace('mmcls.', 'mmpretrain.')
        # As its successor says it.
        del backbone.output_cls_token
        backbone.out_type = 'featmap'
    return stock


def swapped(name: str, column: str) -> Config:
    """A zoo config with UDP, in one of the ways."""
    way, codec = column.split(', ')
    stock = stock_config(name)
    if column == KEPT:
        return Config(keep(stock.to_dict())[0])
    if way == 'names':
        return Config(swap_names(stock.to_dict(), CODECS[codec]))
    return Config(swap(stock.to_dict(), codec)[0])


def layers_of(cfg: Config) -> Dict[str, Tuple[int, ...]]:
    """The shapes in the state dict of a config's model, by their keys."""
    model = network_of(cfg) or MODELS.build(cfg.model.to_dict())
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def try_out(name: str, column: str) -> Checked:
    """Build a config in one of the ways, train it for a step, and predict.


    Raises:
        Exception: It could not.
    """
    cfg = swapped(name, column)
    # A few configs have it off, of which some have to.
    if not has_fewer_test_keypoints(cfg):
        cfg.model.test_cfg.flip_test = True
    if column == KEPT:
        return try_out_kept(stock_config(name), cfg)
    checked = check(cfg)
    if set(checked.maps) != set(checked.targets):
        raise ValueError(f'maps {checked.maps} do not fit targets {checked.targets}')
    return checked


def try_out_kept(stock: Config, kept: Config) -> Checked:
    """Compare the layers of two configs' models, and predict with weights kept.

    Where the network can be built without numbers in its weights, it is, and its head
    is given noise of the shape of its maps.

    Raises:
        Exception: The layers differ, or it could not.
    """
    layers, others = layers_of(stock), layers_of(kept)
    if layers != others:
        differ = sorted({*layers.items()} ^ {*others.items()})
        raise ValueError(f'layers that only one of the models has: {differ}')
    network = network_of(kept)
    if network is None or hasattr(network.head, 'pose_head'):
        # Its training is the stock one.
        return check(Config(dict(kept.to_dict(), train_dataloader=None)))
    forward = network.head.forward

    def noise(feats: Any) -> Any:
        made = forward(feats)
        if isinstance(made, torch.Tensor):
            return torch.rand(made.shape)
        return [torch.rand(maps.shape) for maps in made]

    sample = sample_of_noise((kept.test_dataloader or kept.val_dataloader).dataset)
    # Its data preprocessor does not go by where it was built.
    network.to('meta')
    with replaced(network.head, forward=noise), torch.no_grad():
        (predicted,) = network.test_step(pseudo_collate([sample]))
    keypoints = predicted.pred_instances.keypoints
    if not np.isfinite(keypoints).all():
        raise ValueError('not every keypoint is finite')
    flip_test, inputs = network.test_cfg['flip_test'], sample['inputs'].shape
    return Checked((1, *inputs), keypoints.shape, flip_test, left_out=[])


def has_fewer_test_keypoints(cfg: Config) -> bool:
    """Whether a config's test data have fewer keypoints than the model, and no more."""
    head = cfg.model.head.get('pose_cfg', cfg.model.head)
    some = cfg.model.test_cfg.get('output_keypoint_indices')
    return some is not None and len(some) < head.out_channels


def sweep_one(name: str, ways: List[str]) -> Dict[str, Any]:
    """What becomes of a config in some of the ways; in a process of its own."""
    torch.set_num_threads(1)
    columns, seen = {}, []
    for column in ways:
        try:
            with quiet():
                seen.append(try_out(name, column))
            columns[column] = ''
        except Exception as error:  # whatever it is, it belongs in the table
            columns[column] = f'{type(error).__name__}: {error}'
    model = zoo_config(name).model
    head = model.head.get('pose_cfg', model.head)
    package, _, backbone = model.backbone.type.rpartition('.')
    size = '{}×{}'.format(*head.decoder.input_size)
    keypoints = str(seen[0].keypoints[1]) if seen else '–'
    holds = (
        not all(checked.flip_test for checked in seen),
        package == 'mmcls',
        any(checked.left_out for checked in seen),
    )
    return dict(
        name=name,
        marks=[mark for mark, held in zip(MARKS, holds) if held],
        cells=[backbone, head.type, head.decoder.type, size, keypoints],
        columns=columns,
    )


def read_found() -> Dict[str, Dict[str, Any]]:
    """What sweeps found so far, by the configs' names."""
    lines = FOUND.read_text(encoding='utf-8').splitlines() if FOUND.is_file() else []
    found: Dict[str, Dict[str, Any]] = {}
    for one in map(json.loads, lines):
        before = found.get(one['name'], one)
        columns = {**before['columns'], **one['columns']}
        marks = [mark for mark in MARKS if mark in before['marks'] + one['marks']]
        found[one['name']] = dict(one, columns=columns, marks=marks)
    return found


def left_to_do(found: Dict[str, Any], columns: List[str]) -> List[str]:
    """Of these columns, those in which a config has not gone well yet."""
    done = found.get('columns', {})
    return [column for column in columns if done.get(column, 'not tried')]


def sweep(ways: Dict[str, List[str]]) -> None:
    """Sweep configs, two at once where they are not large, and write it down.

    Args:
        ways: For each config the columns to do.
    """
    FOUND.parent.mkdir(exist_ok=True)
    # Forked, so that the toolbox is imported once; one config a process, so that
    # the memory of a large model is free again.
    context = multiprocessing.get_context('fork')
    with progress() as bars, FOUND.open('a', encoding='utf-8') as file:
        task = bars.add_task('sweep', total=len(ways), note='')
        for large, processes in ((False, os.cpu_count()), (True, 1)):
            group = [name for name in ways if (LARGE in name) == large]
            with context.Pool(processes, maxtasksperchild=1) as pool:
                started = [
                    (n, pool.apply_async(sweep_one, (n, ways[n]))) for n in group
                ]
                for name, result in started:
                    bars.advance(task)
                    try:
                        found = result.get(PATIENCE)
                    except multiprocessing.TimeoutError:
                        # Killed for its memory, or stuck.
                        say(f'{name} did not end', bars.console)
                        continue
                    print(json.dumps(found), file=file, flush=True)
                    for column, error in found['columns'].items():
                        if error:
                            say(f'{name}: {column}: {error}', bars.console)


def write_page(found: List[Dict[str, Any]]) -> None:
    """Write the page with the table of all configs found."""
    template = jinja2.Template(
        TEMPLATE.read_text(encoding='utf-8'),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    errors = [text for one in found for text in one['columns'].values() if text]
    folders = groupby(found, lambda one: one['name'].rpartition('/')[0])
    page = template.render(
        found=found,
        folders=[(folder, list(configs)) for folder, configs in folders],
        columns=COLUMNS,
        errors=list(dict.fromkeys(errors)),
        version=mmpose.__version__,
    )
    TABLE.write_text(page, encoding='utf-8')


def main() -> None:
    """Sweep what has not gone well yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', default='', help='a part of the names to sweep')
    parser.add_argument('--column', default='', help='a part of the columns to sweep')
    args = parser.parse_args()
    register_all_modules()
    with ends_in_words():
        names = convertible(args.only)
    columns, found = [c for c in COLUMNS if args.column in c], read_found()
    ways = {name: left_to_do(found.get(name, {}), columns) for name in names}
    sweep({name: left for name, left in ways.items() if left})
    found = read_found()
    missing = [
        name for name in names if {*COLUMNS} - {*found.get(name, {}).get('columns', {})}
    ]
    if missing:
        say_error(f'no table without {missing}; run it again')
    elif not args.only:
        write_page([found[name] for name in names])
        say(f'the table is in {TABLE}')


if __name__ == '__main__':
    main()
