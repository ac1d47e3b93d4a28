"""The benchmark's course: data, trainings of the stock toolbox, tests, report.

What is done is marked by a file ``done`` and not done again, so that the same command
goes on where it was interrupted.
"""

import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

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
    LADDER,
    PHOTOGRAPHS,
    SHIFTED,
    SWAPPED,
    TESTS,
    Kind,
    Photographs,
    network_config,
    networks_of,
    step_of,
    swapped_config,
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
        data: Dict[str, Data] = {}
        budget = Budget((), seeds, IMAGES, DRAWN.iters)
        for seed in range(seeds):
            folder = out / 'data'
            data[DRAWN.name] = draw(folder / f'seed{seed}', budget, seed, shown)
            if given:
                data[PHOTOGRAPHS.name] = _photographs(folder / 'photographs', given)
            for kind in kinds:
                work += work_on(out, kind, data[kind.name], seed, shown)
        try:
            run_all(shown, work)
        except KeyboardInterrupt:
            say('the same command goes on from here')
            raise
        report(out, kinds, data, seeds, command, time.monotonic() - started)


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

    def train_swapped(arm: str, part: int, weights: Optional[Path], at: Path) -> None:
        """Train for a part of the iterations with all names swapped, and test."""
        iters = kind.iters // part
        cfg = swapped_config(arm, stocks[iters], weights)
        title = f'{kind.title}, seed {seed}: {at.relative_to(out / folder)}'
        files = [at / 'config.py', f'--work-dir={at}']
        run_once(shown, title, at, [tools / 'train.py', *files], cfg)
        test = at / 'test'
        files = [at / 'config.py', at / f'iter_{iters}.pth', f'--work-dir={test}']
        files += [f'--out={test / "metrics.json"}']
        files += [f'--dump={test / "predictions.pkl"}']
        run_once(shown, f'{title}, test', test, [tools / 'test.py', *files])

    def fine_tune() -> None:
        home = out / folder / 'stock_biased'
        for arm, part in product(SWAPPED, LADDER):
            weights = home / f'iter_{kind.iters}.pth'
            train_swapped(arm, part, weights, home / step_of(arm, part))

    def stock_biased_and_on(*args) -> None:
        train_and_test(*args)
        fine_tune()

    stocks = {
        kind.iters // part: Config.fromstring(
            stock_config(data, kind.iters // part, seed), '.py'
        )
        for part in (1, *LADDER)
    }
    if kind.name == DRAWN.name:
        for arm in SWAPPED:
            yield partial(train_swapped, arm, 1, None, out / folder / arm)
    for network in networks_of(kind):
        of = shifted if network == SHIFTED else data
        # Not in the threads, in which mmengine cannot read configs.
        stock = Config.fromstring(stock_config(of, kind.iters, seed), '.py')
        tuned = kind.name == DRAWN.name and network == 'stock_biased'
        work = stock_biased_and_on if tuned else train_and_test
        yield partial(work, network, of, stock)
