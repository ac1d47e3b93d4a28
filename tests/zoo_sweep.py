"""Every top-down heatmap config of MMPose's zoo under UDP, in a table.

Each config is swapped in two ways, by renaming types alone and as ``udp-plugin
convert`` does it, for both codecs. The results are built, take a training step, and
make a flip-tested prediction (:func:`udp_plugin.convert.check.check`). Run it by::

    make zoo                        # all, some 40 minutes on two cores; resumes
    make zoo ARGS="--only vipnas"   # those whose name has this

It writes ``docs/zoo.md``, and what it found of each config to
``work_dirs/zoo_sweep.jsonl``, from which it resumes; delete that to begin anew.
"""

import argparse
import json
import multiprocessing
import os
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, List

import jinja2
import mmpose
import torch
from helpers import swap_names, zoo_config
from mmengine.config import Config
from mmpose.utils import register_all_modules

from udp_plugin.convert.check import Checked, check
from udp_plugin.convert.swaps import swap
from udp_plugin.convert.zoo import convertible
from udp_plugin.errors import ends_in_words, say_error
from udp_plugin.names import CODECS
from udp_plugin.ui import progress, quiet, say

PROJECT = Path(__file__).resolve().parents[1]
FOUND = PROJECT / 'work_dirs' / 'zoo_sweep.jsonl'
TEMPLATE = PROJECT / 'tests' / 'zoo.md.j2'
TABLE = PROJECT / 'docs' / 'zoo.md'
#: How a config is swapped, and to which codec.
COLUMNS = ['names, gaussian', 'names, offset', 'convert, gaussian', 'convert, offset']
#: Models of which two at once would not fit into 24 GiB.
LARGE = 'huge'
#: Longest that a config may take, in seconds.
PATIENCE = 1200


def swapped(name: str, column: str) -> Config:
    """A zoo config with UDP, in one of the ways."""
    way, codec = column.split(', ')
    stock = zoo_config(name)
    backbone = stock.model.backbone
    if backbone.type.startswith('mmcls.'):
        backbone.type = backbone.type.replace('mmcls.', 'mmpretrain.')
        # As its successor says it.
        del backbone.output_cls_token
        backbone.out_type = 'featmap'
    if way == 'names':
        return Config(swap_names(stock.to_dict(), CODECS[codec]))
    return Config(swap(stock.to_dict(), codec)[0])


def try_out(name: str, column: str) -> Checked:
    """Build a config in one of the ways, train it for a step, and predict.

    Raises:
        Exception: It could not.
    """
    cfg = swapped(name, column)
    # A few configs have it off, of which some have to.
    if not has_fewer_test_keypoints(cfg):
        cfg.model.test_cfg.flip_test = True
    checked = check(cfg)
    if set(checked.maps) != set(checked.targets):
        raise ValueError(f'maps {checked.maps} do not fit targets {checked.targets}')
    return checked


def has_fewer_test_keypoints(cfg: Config) -> bool:
    """Whether a config's test data have fewer keypoints than the model, and no more."""
    head = cfg.model.head.get('pose_cfg', cfg.model.head)
    some = cfg.model.test_cfg.get('output_keypoint_indices')
    return some is not None and len(some) < head.out_channels


def sweep_one(name: str) -> Dict[str, Any]:
    """What becomes of a config in each of the ways; in a process of its own."""
    torch.set_num_threads(1)
    columns, seen = {}, []
    for column in COLUMNS:
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
    marks = {
        '†': not all(checked.flip_test for checked in seen),
        '§': package == 'mmcls',
        '‡': any(checked.left_out for checked in seen),
    }
    return dict(
        name=name,
        marks=[mark for mark, holds in marks.items() if holds],
        cells=[backbone, head.type, head.decoder.type, size, keypoints],
        columns=columns,
    )


def read_found() -> Dict[str, Dict[str, Any]]:
    """What sweeps found so far, by the configs' names."""
    lines = FOUND.read_text(encoding='utf-8').splitlines() if FOUND.is_file() else []
    return {found['name']: found for found in map(json.loads, lines)}


def sweep(names: List[str]) -> None:
    """Sweep the configs, two at once where they are not large, and write it down."""
    FOUND.parent.mkdir(exist_ok=True)
    # Forked, so that the toolbox is imported once; one config a process, so that
    # the memory of a large model is free again.
    context = multiprocessing.get_context('fork')
    with progress() as bars, FOUND.open('a', encoding='utf-8') as file:
        task = bars.add_task('sweep', total=len(names), note='')
        for large, processes in ((False, os.cpu_count()), (True, 1)):
            group = [name for name in names if (LARGE in name) == large]
            with context.Pool(processes, maxtasksperchild=1) as pool:
                started = [(n, pool.apply_async(sweep_one, (n,))) for n in group]
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
    args = parser.parse_args()
    register_all_modules()
    with ends_in_words():
        names = convertible(args.only)
    found = read_found()
    sweep([n for n in names if n not in found or any(found[n]['columns'].values())])
    found = read_found()
    missing = [name for name in names if name not in found]
    if missing:
        say_error(f'no table without {missing}; run it again')
    elif not args.only:
        write_page([found[name] for name in names])
        say(f'the table is in {TABLE}')


if __name__ == '__main__':
    main()
