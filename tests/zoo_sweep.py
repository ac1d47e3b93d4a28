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
import logging
import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any, Dict, List

import mmpose
import torch
from helpers import swap_names, zoo_config
from mmengine.config import Config
from mmpose.utils import register_all_modules

from udp_plugin.convert.check import Checked, check
from udp_plugin.convert.swaps import swap
from udp_plugin.convert.zoo import convertible
from udp_plugin.names import CODECS
from udp_plugin.ui import progress, say, say_error

PROJECT = Path(__file__).resolve().parents[1]
FOUND = PROJECT / 'work_dirs' / 'zoo_sweep.jsonl'
TABLE = PROJECT / 'docs' / 'zoo.md'
#: How a config is swapped, and to which codec.
COLUMNS = [
    f'{way}, {codec}'
    for way in ('names', 'convert')
    for codec in ('gaussian', 'offset')
]
#: Models of which two at once would not fit into 24 GiB.
LARGE = 'huge'
#: Longest that a config may take, in seconds.
PATIENCE = 1200

INTRODUCTION = """\
# The zoo under UDP

All {count} top-down heatmap configs of MMPose {version}, swapped by renaming types
alone and by `udp-plugin convert`, each for the Gaussian and for the offset codec. ✓:
the model is built with the config's own backbone and sizes, takes a training step on
a batch of two with the config's own optimizer (in full precision), and makes a
prediction with the flip test, on random data that went through the config's own
pipelines; maps have the shape of the targets, and all values are finite. `make zoo`
does all that and makes this page.

| | | ✓ |
|---|---|--:|
| **a** | by names, Gaussian | {0} |
| **b** | by names, offset | {1} |
| **c** | by `convert`, Gaussian | {2} |
| **d** | by `convert`, offset | {3} |

"""
HEADER = ['config', 'backbone', 'head', 'codec', 'input', 'K', 'a', 'b', 'c', 'd']
#: Marks in the table, and what they say.
MARKS = {
    '†': 'Without the flip test, which the stock config has off, too: its test data '
    'have fewer keypoints than the model, and do not say how the others mirror.',
    '§': 'With `mmpretrain.VisionTransformer`, `out_type="featmap"` as the backbone, '
    'which the stock config needs, too: MMCls, as that package was called, refuses the '
    'mmcv that goes with this MMPose.',
    '‡': 'Without its step `Albumentation`, whose library is not installed here.',
}


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
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    model = zoo_config(name).model
    head = model.head.get('pose_cfg', model.head)
    size = '{}×{}'.format(*head.decoder.input_size)
    keypoints, marks = '–', ['§'] if model.backbone.type.startswith('mmcls') else []
    columns = {}
    for column in COLUMNS:
        try:
            checked = try_out(name, column)
        except Exception as error:  # whatever it is, it belongs in the table
            columns[column] = f'{type(error).__name__}: {error}'
        else:
            columns[column] = ''
            keypoints = str(checked.keypoints[1])
            marks += [] if checked.flip_test else ['†']
            marks += ['‡'] if checked.left_out else []
    backbone = model.backbone.type.rpartition('.')[-1]
    return dict(
        name=name,
        marks=sorted(set(marks), key=list(MARKS).index),
        cells=[backbone, head.type, head.decoder.type, size, keypoints],
        columns=columns,
    )


def read_found() -> Dict[str, Dict[str, Any]]:
    """What earlier sweeps found, by the configs' names."""
    if not FOUND.is_file():
        return {}
    lines = FOUND.read_text(encoding='utf-8').splitlines()
    return {found['name']: found for found in map(json.loads, lines)}


def sweep(names: List[str]) -> None:
    """Sweep the configs that have not been swept yet, and write down what was found."""
    FOUND.parent.mkdir(exist_ok=True)
    earlier = read_found()
    # What did not go well may have been mended meanwhile.
    left = [n for n in names if n not in earlier or any(earlier[n]['columns'].values())]
    # Forked, so that the toolbox is imported once; one config a process, so that
    # the memory of a large model is free again.
    context = multiprocessing.get_context('fork')
    with progress() as bars, FOUND.open('a', encoding='utf-8') as file:
        done = len(names) - len(left)
        task = bars.add_task('sweep', total=len(names), completed=done, note='')
        for processes, group in (
            (os.cpu_count(), [name for name in left if LARGE not in name]),
            (1, [name for name in left if LARGE in name]),
        ):
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
                    for column, said in found['columns'].items():
                        if said:
                            say(f'{name}: {column}: {said}', bars.console)


def write_table(found: List[Dict[str, Any]]) -> None:
    """Write the table of all configs found."""
    worked = {c: sum(not one['columns'][c] for one in found) for c in COLUMNS}
    counts = [f'{worked[column]} of {len(found)}' for column in COLUMNS]
    introduction = INTRODUCTION.format(
        *counts, count=len(found), version=mmpose.__version__
    )
    said = [one['columns'][c] for one in found for c in COLUMNS if one['columns'][c]]
    numbers = {text: str(n) for n, text in enumerate(dict.fromkeys(said), 1)}
    lines = [introduction, *(f'{n}. {text}' for text, n in numbers.items()), '']
    lines += [f'{mark} {text}\n' for mark, text in MARKS.items()]
    here = None
    for one in found:
        folder, _, name = one['name'].rpartition('/')
        if folder != here:
            here = folder
            lines += ['', f'## {folder.replace("topdown_heatmap/", "")}', '']
            lines += [f'| {" | ".join(HEADER)} |', '|' + '---|' * len(HEADER)]
        cells = [' '.join([name[: -len('.py')], *one['marks']]), *one['cells']]
        cells += [numbers.get(one['columns'][column], '✓') for column in COLUMNS]
        lines.append(f'| {" | ".join(cells)} |')
    TABLE.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def main() -> None:
    """Sweep, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', default='', help='a part of the names to sweep')
    args = parser.parse_args()
    register_all_modules()
    names = [name for name in convertible() if args.only in name]
    sweep(names)
    found = read_found()
    missing = [name for name in names if name not in found]
    if missing:
        say_error(f'no table without {missing}; run it again')
    elif not args.only:
        write_table([found[name] for name in names])
        say(f'the table is in {TABLE}')


if __name__ == '__main__':
    main()
