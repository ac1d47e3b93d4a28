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
import time
import warnings
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any, Dict, List

import mmpose
import torch
from helpers import swap_names, zoo_config
from mmengine.config import Config
from mmpose.utils import register_all_modules
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from udp_plugin.convert.check import Checked, check
from udp_plugin.convert.swaps import swap
from udp_plugin.convert.zoo import convertible
from udp_plugin.names import CODECS

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
    found: Dict[str, Any] = dict(name=name, columns={}, seconds={})
    found.update(keypoints='–', marks=[])
    found.update(describe(zoo_config(name)))
    for column in COLUMNS:
        started = time.monotonic()
        try:
            checked = try_out(name, column)
        except Exception as error:  # whatever it is, it belongs in the table
            found['columns'][column] = f'{type(error).__name__}: {error}'
        else:
            found['columns'][column] = ''
            found['keypoints'] = checked.keypoints[1]
            found['marks'] = [] if checked.flip_test else ['†']
            found['marks'] += ['‡'] if checked.left_out else []
            found['marks'] += ['§'] if found['backbone'].startswith('mmcls') else []
        found['seconds'][column] = round(time.monotonic() - started, 1)
    return found


def describe(stock: Config) -> Dict[str, str]:
    """What the table says of a stock config."""
    head = stock.model.head
    head = head.get('pose_cfg', head)
    losses = head.loss if isinstance(head.loss, list) else [head.loss]
    return dict(
        backbone=stock.model.backbone.type,
        head=head.type,
        codec=head.decoder.type,
        loss=' + '.join(sorted({loss.type for loss in losses})),
        input='{}×{}'.format(*head.decoder.input_size),
    )


def read_found() -> Dict[str, Dict[str, Any]]:
    """What earlier sweeps found, by the configs' names."""
    if not FOUND.is_file():
        return {}
    lines = FOUND.read_text(encoding='utf-8').splitlines()
    return {found['name']: found for found in map(json.loads, lines)}


def is_final(found: Dict[str, Any]) -> bool:
    """Whether all went well; what did not may have been mended meanwhile."""
    return not any(found['columns'].values())


def sweep(names: List[str], console: Console) -> None:
    """Sweep the configs that have not been swept yet."""
    FOUND.parent.mkdir(exist_ok=True)
    earlier = read_found()
    left = [n for n in names if n not in earlier or not is_final(earlier[n])]
    # Forked, so that the toolbox is imported once; one config a process, so that
    # the memory of a large model is free again.
    context = multiprocessing.get_context('fork')
    bars = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress('{task.description}', *bars, console=console) as progress:
        task = progress.add_task('sweep', total=len(names))
        progress.advance(task, len(names) - len(left))
        for processes, group in (
            (os.cpu_count(), [name for name in left if LARGE not in name]),
            (1, [name for name in left if LARGE in name]),
        ):
            with context.Pool(processes, maxtasksperchild=1) as pool:
                started = [(n, pool.apply_async(sweep_one, (n,))) for n in group]
                for name, result in started:
                    keep(name, result, console)
                    progress.advance(task)


def keep(name: str, result: AsyncResult, console: Console) -> None:
    """Wait for what was found of a config, and write it down."""
    try:
        found = result.get(PATIENCE)
    except multiprocessing.TimeoutError:
        # Killed for its memory, or stuck.
        console.print(f'{name} did not end', style='red')
        return
    with FOUND.open('a', encoding='utf-8') as file:
        file.write(json.dumps(found) + '\n')
    for column, said in found['columns'].items():
        if said:
            console.print(f'{name}: {column}: {said}', markup=False)


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
        cells = [' '.join([name[: -len('.py')], *one['marks']])]
        backbone = one['backbone'].rpartition('.')[-1]
        cells += [backbone, one['head'], one['codec'], one['input']]
        cells += [str(one['keypoints'])]
        cells += [numbers.get(one['columns'][column], '✓') for column in COLUMNS]
        lines.append(f'| {" | ".join(cells)} |')
    TABLE.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def main() -> None:
    """Sweep, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', default='', help='a part of the names to sweep')
    args = parser.parse_args()
    console = Console(highlight=False)
    register_all_modules()
    names = [name for name in convertible() if args.only in name]
    sweep(names, console)
    found = read_found()
    if not args.only:
        missing = [name for name in names if name not in found]
        if missing:
            console.print(f'no table without {missing}; run it again', style='red')
            return
        write_table([found[name] for name in names])
        console.print(f'the table is in {TABLE}')


if __name__ == '__main__':
    main()
