"""What the benchmark trains, all of it with the stock toolbox alone, and its tests."""

import json
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config

from benchmarks.study.networks import configure, own_test
from udp_plugin.convert.swaps import keep
from udp_plugin.demo.configs import Data
from udp_plugin.files import write_text


class Photographs(NamedTuple):
    """A user's own data: two annotation files in COCO format, and their images."""

    train: Path
    test: Path
    img: Path


class Kind(NamedTuple):
    """A kind of data, and what is trained on it."""

    name: str
    title: str
    #: Arms of the study, see :data:`benchmarks.study.networks.ARMS`.
    networks: Tuple[str, ...]
    #: Training iterations of each.
    iters: int


#: Both measures, and targets that are rounded or not.
DRAWN = Kind('drawn', 'drawn figures', ('stock_biased', 'stock_dark', 'stock_udp'), 600)
PHOTOGRAPHS = Kind('photographs', 'photographs', ('stock_biased', 'stock_udp'), 1200)
#: All names swapped: these are trained as the others, and fine-tuned from kept weights
#: of ``MSRAHeatmap``, for a tenth and a quarter of that.
SWAPPED = {'udp_gaussian': '`UDPGaussianHeatmap`', 'udp_offset': '`UDPOffsetHeatmap`'}
LADDER = 10, 4
#: Trained and tested on labels that count from 1.
SHIFTED = 'stock_biased_from_1'
#: What networks are called.
LABELS = {
    'stock_biased': '`MSRAHeatmap`',
    'stock_dark': '`MSRAHeatmap`, `unbiased=True`',
    'stock_udp': '`UDPHeatmap`',
    SHIFTED: '`MSRAHeatmap`, labels from 1',
}
#: The same weights under several configs: what is swapped, and the flip test's state.
TESTS = {
    'stock': 'as the toolbox tests it',
    'stock_off': 'without a flip test',
    'kept_off': 'DARK, without a flip test',
    'heads': 'exact flip, DARK',
    'kept': 'and dithered',
}


def shifted_labels(ann: Path, out: Path) -> Path:
    """Write annotations whose keypoints lie a source pixel too far right and down."""
    content = json.loads(ann.read_text(encoding='utf-8'))
    for annotation in content['annotations']:
        points = annotation['keypoints']
        for first in range(0, len(points), 3):
            if points[first + 2] > 0:
                points[first] += 1
                points[first + 1] += 1
    return write_text(out, json.dumps(content))


def with_shifted_labels(data: Data, folder: Path) -> Data:
    """The same photographs, with labels that count from 1."""
    train, test = (
        shifted_labels(ann, folder / f'{split}_from_1.json')
        for split, ann in (('train', data.train_ann), ('test', data.test_ann))
    )
    return data._replace(train_ann=train, test_ann=test)


def networks_of(kind: Kind) -> Sequence[str]:
    """All networks of a kind of data."""
    return (*kind.networks, SHIFTED)


def step_of(arm: str, part: int) -> str:
    """The folder of a fine-tuning, in that of the network whose weights it takes."""
    return f'then_{arm}_{part}'


def swapped_config(arm: str, stock: Config, weights: Optional[Path] = None) -> Config:
    """The config that trains with all names swapped.

    Args:
        arm: A key of :data:`SWAPPED`.
        stock: The demo's stock config of its data and iterations.
        weights: To go on from, those that fit.
    """
    cfg = configure(stock, own_test(arm))
    cfg.load_from = weights and str(weights)
    return cfg


def network_config(network: str, stock: Config, test: Optional[str] = None) -> Config:
    """The config that trains a network, or one that tests it.

    Args:
        network: A key of :data:`LABELS`.
        stock: The demo's stock config of its data.
        test: A key of :data:`TESTS`; None is as its zoo configs do.
    """
    arm = 'stock_biased' if network == SHIFTED else network
    flip = 'off' if test in ('stock_off', 'kept_off') else ''
    cfg = configure(stock, own_test(arm, flip))
    if test in ('heads', 'kept', 'kept_off'):
        swapped, _ = keep(cfg.to_dict())
        if test == 'heads':
            # The stock estimator, which does not dither.
            swapped['model']['type'] = cfg.model.type
        cfg = Config(swapped)
    return cfg
