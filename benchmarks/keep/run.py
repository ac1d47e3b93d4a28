"""The benchmark's course: data, trainings of the stock toolbox, tests, report.

What is done is marked by a file ``done`` and not done again, so that the same command
goes on where it was interrupted.
"""

import time
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, List, Optional

from mmengine.config import Config
from rich.progress import Progress

from benchmarks.study.networks import Budget
from benchmarks.study.run import draw, run_all, run_once
from udp_plugin.coco import read_coco
from udp_plugin.demo.configs import Data, stock_config
from udp_plugin.demo.own_data import metainfo_text
from udp_plugin.demo.scripts import find_tools
from udp_plugin.files import alone_in, write_text
from udp_plugin.keypoint_names import mirror_images
from udp_plugin.ui import progress, say

from .networks import (
    DRAWN,
    PHOTOGRAPHS,
    SHIFTED,
    TESTS,
    Kind,
    Photographs,
    network_config,
    networks_of,
    with_shifted_labels,
)
from .report import report

SEEDS, IMAGES = 3, 600


def run_keep(
    out: Path,
    command: str,
    train_ann: Optional[Path] = None,
    test_ann: Optional[Path] = None,
    img: Optional[Path] = None,
    seeds: Optional[int] = None,
) -> None:
    """Train stock networks, test them with names swapped, and write the page.

    Args:
        out: The folder for everything; one in which it was begun goes on.
        command: As it was called, for ``results.json``.
        train_ann, test_ann, img: Photographs, besides drawn figures.
        seeds: How often everything is drawn and trained anew; 3 by default.

    Raises:
        UserError: A script failed, or there is no MMPose.
    """
    started, seeds = time.monotonic(), seeds or SEEDS
    given = Photographs(train_ann, test_ann, img) if train_ann else None
    kinds = [DRAWN, PHOTOGRAPHS] if given else [DRAWN]
    with alone_in(out), progress() as shown:
        work: List[Callable[[], None]] = []
        budget = Budget((), seeds, IMAGES, DRAWN.iters)
        for seed in range(seeds):
            drawn = draw(out / 'data' / f'seed{seed}', budget, seed, shown)
            work += work_on(out, DRAWN, drawn, seed, shown)
            if given:
                photographs = _photographs(out / 'data' / 'photographs', given)
                work += work_on(out, PHOTOGRAPHS, photographs, seed, shown)
        try:
            run_all(shown, work)
        except KeyboardInterrupt:
            say('the same command goes on from here')
            raise
        report(out, kinds, seeds, command, time.monotonic() - started)


def _photographs(folder: Path, given: Photographs) -> Data:
    train, test = (read_coco(ann) for ann in (given.train, given.test))
    category = train['categories'][0]
    names = category['keypoints']
    text = metainfo_text(category, mirror_images(names), 'photographs')
    metainfo = write_text(folder / 'keypoints.py', text)
    files = given.train, given.img, given.test, given.img
    counts = len(train['annotations']), len(test['annotations'])
    return Data('photographs', *files, *counts, len(names), metainfo)


def work_on(
    out: Path, kind: Kind, data: Data, seed: int, shown: Progress
) -> Iterator[Callable[[], None]]:
    """What is to be done with each network of a kind of data and seed."""
    folder, tools = f'{kind.name}/seed{seed}', find_tools()
    shifted = with_shifted_labels(data, out / 'data' / folder)

    def train_and_test(network: str, of: Data, stock: Config) -> None:
        home = out / folder / network

        def run(at: Path, test: Optional[str], *call: object) -> None:
            title = f'{kind.title}, seed {seed}: {at.relative_to(home.parent)}'
            run_once(shown, title, at, call, network_config(network, stock, test))

        run(home, None, tools / 'train.py', home / 'config.py', f'--work-dir={home}')
        weights = home / f'iter_{kind.iters}.pth'
        for test in TESTS:
            at = home / test
            call = at / 'config.py', weights, f'--work-dir={at}'
            files = f'--out={at / "metrics.json"}', f'--dump={at / "predictions.pkl"}'
            run(at, test, tools / 'test.py', *call, *files)
        # What the audit tells of the weights, by the people that they are tested on.
        at = home / 'audit'
        call = at / 'config.py', weights, at, of.test_ann, of.test_img
        run(at, 'stock', '-m', 'benchmarks.keep.trained', *call)

    for network in networks_of(kind):
        of = shifted if network == SHIFTED else data
        # Not in the threads, in which mmengine cannot read configs.
        stock = Config.fromstring(stock_config(of, kind.iters, seed), '.py')
        yield partial(train_and_test, network, of, stock)
