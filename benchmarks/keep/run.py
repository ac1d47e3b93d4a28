"""The benchmark's course: data, trainings of the stock toolbox, tests, report.

What is done is marked by a file ``done`` and not done again, so that the same command
goes on where it was interrupted.
"""

from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

from rich.progress import Progress

from benchmarks.study.networks import Budget
from benchmarks.study.run import draw, run_all, run_once
from udp_plugin.coco import read_coco
from udp_plugin.demo.configs import Data
from udp_plugin.demo.own_data import metainfo_text
from udp_plugin.demo.scripts import find_tools
from udp_plugin.files import alone_in, write_text
from udp_plugin.keypoint_names import mirror_images
from udp_plugin.ui import progress

from .networks import (
    DRAWN,
    PHOTOGRAPHS,
    SHIFTED,
    Kind,
    Photographs,
    network_config,
    with_shifted_labels,
)

SEEDS, IMAGES = 3, 600


def run_keep(
    out: Path,
    command: str,
    train_ann: Optional[Path] = None,
    test_ann: Optional[Path] = None,
    img: Optional[Path] = None,
    seeds: int = SEEDS,
) -> None:
    """Train stock networks, test them with names swapped, and write the page."""
    given = None
    if train_ann and test_ann and img:
        given = Photographs(train_ann, test_ann, img)
    with alone_in(out), progress() as shown:
        work = []
        for seed in range(seeds):
            budget = Budget((), seeds, IMAGES, DRAWN.iters)
            drawn = draw(out / 'data' / f'seed{seed}', budget, seed, shown)
            work += _train(out, DRAWN, drawn, seed, shown)
            if given:
                data = _photographs(out / 'data' / 'photographs', given)
                work += _train(out, PHOTOGRAPHS, data, seed, shown)
        run_all(shown, work)


def _photographs(folder: Path, given: Photographs) -> Data:
    train, test = (read_coco(ann) for ann in (given.train, given.test))
    category = train['categories'][0]
    names = category['keypoints']
    text = metainfo_text(category, mirror_images(names), 'photographs')
    metainfo = write_text(folder / 'keypoints.py', text)
    files = given.train, given.img, given.test, given.img
    counts = len(train['annotations']), len(test['annotations'])
    return Data('photographs', *files, *counts, len(names), metainfo)


def _train(
    out: Path, kind: Kind, data: Data, seed: int, shown: Progress
) -> Iterator[Callable[[], None]]:
    networks: Dict[str, Data] = dict.fromkeys(kind.networks, data)
    folder = f'{kind.name}/seed{seed}'
    networks[SHIFTED] = with_shifted_labels(data, out / 'data' / folder)
    for network, data in networks.items():
        home = out / folder / network
        config = network_config(network, data, kind.iters, seed)
        command = find_tools() / 'train.py', home / 'config.py', f'--work-dir={home}'
        title = f'{kind.title}, seed {seed}: {network}'
        yield partial(run_once, shown, title, home, command, config)
