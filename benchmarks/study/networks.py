"""What the study trains, and under which configs it tests what it trained."""

import copy
from typing import Dict, List, NamedTuple, Sequence, Tuple

from mmengine.config import Config

from udp_plugin import functional as F
from udp_plugin import names
from udp_plugin.functional.loss import OFFSET_WEIGHT, OFFSET_WINDOW

IMPORTS = ['udp_plugin', 'benchmarks.study.components']
#: A Gaussian of which DARK makes more here, in the stock one's sigma. MSRAHeatmap draws
#: it beside its pixel.
NARROW = 0.75
#: The default R of discs, as a share of the maps' longer side.
RADIUS_FACTOR = F.RADIUS_PER_SIGMA / 32
#: The settings of the loss and of the reading were chosen on this seed alone.
CHOSEN_ON = 0


class Size(NamedTuple):
    """A network's input in pixels, and how many of them a heatmap pixel is."""

    input_size: Tuple[int, int]
    stride: int

    @property
    def heatmap_size(self) -> Tuple[int, int]:
        """Width and height in pixels."""
        return tuple(n // self.stride for n in self.input_size)

    @property
    def sigma(self) -> float:
        """Of stock Gaussians, heatmap px: a 32nd of the longer side, as in the zoo.

        But at least 1, below which there is too little to read from.
        """
        return max(max(self.heatmap_size) / 32, 1)

    @property
    def name(self) -> str:
        """Of its folder, and its JSON key."""
        return '{}x{}_stride{}'.format(*self.input_size, self.stride)

    def __str__(self) -> str:
        return '{}×{}, stride {}'.format(*self.input_size, self.stride)


class Budget(NamedTuple):
    """How much is drawn and trained."""

    sizes: Sequence[Size]
    seeds: int
    #: Drawn for training; a third as many for testing.
    images: int
    #: Training iterations of each network.
    iters: int


#: Under an hour on two cores.
DEFAULT = Budget((Size((96, 128), 4), Size((128, 160), 8)), 3, images=600, iters=300)
#: For a GPU.
FULL = Budget((Size((192, 256), 4), Size((192, 256), 8)), 5, images=6000, iters=6000)


# --- ways to process data -------------------------------------------------------------

#: What is changed of the pipelines' steps, by the stock type.
STOCK_UDP = {'TopdownAffine': dict(use_udp=True)}
OURS = {stock: dict(type=ours) for stock, ours in names.TRANSFORMS.items()}
OUR_HEAD = dict(type=names.HEADS['HeatmapHead'])


class Arm(NamedTuple):
    """A way to process data: what a config has in the place of the stock components."""

    label: str
    #: Its ``sigma`` counts in that of the size.
    codec: dict
    transforms: Dict[str, dict] = {}
    head: dict = {}


def _gaussian(label: str, sigma: float) -> Arm:
    codec = dict(type=names.CODECS['gaussian'], sigma=sigma)
    return Arm(label, codec, OURS, OUR_HEAD)


def _offset(label: str, head: dict = OUR_HEAD, **codec) -> Arm:
    return Arm(label, dict(type=names.CODECS['offset'], **codec), OURS, head)


def _offset_head(**loss) -> dict:
    # The stock head takes any loss, and three maps for each of 17 keypoints as such.
    return dict(out_channels=3 * 17, loss=loss)


#: What is compared.
GRID = {
    'stock_biased': Arm('stock: MSRAHeatmap', dict(type='MSRAHeatmap', sigma=1)),
    'stock_dark': Arm(
        'stock: MSRAHeatmap, unbiased=True (DARK)',
        dict(type='MSRAHeatmap', sigma=1, unbiased=True),
    ),
    'stock_udp': Arm('stock: UDPHeatmap', dict(type='UDPHeatmap', sigma=1), STOCK_UDP),
    'stock_combined': Arm(
        'stock: UDPHeatmap, combined',
        dict(type='UDPHeatmap', heatmap_type='combined'),
        STOCK_UDP,
        _offset_head(type='CombinedTargetMSELoss', use_target_weight=True),
    ),
    'udp_gaussian': _gaussian('UDPGaussianHeatmap', 1),
    'udp_gaussian_narrow': _gaussian(f'UDPGaussianHeatmap, sigma × {NARROW}', NARROW),
    'udp_offset': _offset('UDPOffsetHeatmap'),
}


def _tried_loss(label: str, **settings) -> Arm:
    loss = dict(error='absolute', weight=OFFSET_WEIGHT, inner=OFFSET_WINDOW)
    loss.update(settings)
    return _offset(label, _offset_head(type='TriedOffsetLoss', **loss))


def _tried_radius(factor: float) -> Arm:
    label = f'radius {factor:g} of the longer side ({RADIUS_FACTOR:.2g})'
    return _offset(label, radius_factor=factor)


_PUBLISHED = dict(type='UDPOffsetLoss', use_target_weight=True, published=True)
#: What the default loss and radius of the offset codec were chosen from.
TRIED = {
    'published': _offset('as published', dict(OUR_HEAD, loss=_PUBLISHED)),
    'squared': _tried_loss('squared error, weight 0.02', error='squared', weight=0.02),
    'smooth': _tried_loss('smooth L1, weight 0.05', error='smooth', weight=0.05),
    'even': _tried_loss('all of the disc weighed alike', inner=None),
    'heaviest': _tried_loss('absolute error, weight 0.05', weight=0.05),
    'heavier': _tried_loss('absolute error, weight 0.0125', weight=0.0125),
    'lighter': _tried_loss('absolute error, weight 0.003', weight=0.003),
    'small': _tried_radius(0.04),
    'large': _tried_radius(0.07),
}
#: For the paper's ablation, beside those of the grid.
_TRANSFORM = Arm('unbiased transform', dict(type='RoundedHeatmap', sigma=1), OURS)
ARMS = {**GRID, 'transform_only': _TRANSFORM, **TRIED}


# --- tests ----------------------------------------------------------------------------


class Test(NamedTuple):
    """A trained network under a config: its own, or another's."""

    network: str
    arm: str
    #: The flip test: ``'off'``, ``'plain'``, or ``'shifted'`` by a heatmap pixel.
    flip: str

    @property
    def name(self) -> str:
        """Its folder beside those of other sizes and seeds, and its JSON key."""
        return f'{self.network}/{self.arm}_{self.flip}'


def own_test(arm: str, flip: str = '') -> Test:
    """The test of a network under its own config.

    Args:
        arm: A key of :data:`ARMS`.
        flip: As its configs in the zoo have it, if no other is given.
    """
    return Test(arm, arm, flip or ('plain' if ARMS[arm].transforms else 'shifted'))


#: With and without the unbiased transform, and the unbiased codec.
ABLATION = ('stock_biased', 'stock_dark', 'transform_only', 'stock_udp')
#: Networks whose maps are read in several ways, and the test that reads them all.
READ, READING = ('udp_offset', 'stock_combined'), own_test('udp_offset')
#: Trained one way and tested the other.
MISMATCHES = (
    Test('stock_dark', 'stock_udp', 'plain'),
    Test('stock_udp', 'stock_dark', 'shifted'),
)


def tests_of(budget: Budget, size: Size, seed: int) -> List[Test]:
    """The tests of all networks of a size and seed.

    Losses and radii are tried at the first size only, on one seed.
    """
    tests = [own_test(arm, flip) for arm in GRID for flip in ('off', '')]
    flips = 'off', 'plain', 'shifted'
    tests += [own_test(arm, flip) for arm in ABLATION for flip in flips]
    tests += MISMATCHES
    if seed == CHOSEN_ON and size == budget.sizes[0]:
        tests += map(own_test, TRIED)
    return list(dict.fromkeys(tests))


def configure(stock: Config, test: Test) -> Config:
    """The demo's stock config with the components and the flip test of a test."""
    cfg, arm = copy.deepcopy(stock), ARMS[test.arm]
    sizes = {key: cfg.codec[key] for key in ('input_size', 'heatmap_size')}
    codec = {**sizes, **arm.codec}
    if 'sigma' in codec:
        codec['sigma'] *= stock.codec.sigma
        if codec['type'] == 'UDPHeatmap' or codec.get('unbiased'):
            # The stock default fits a sigma of 2 only.
            codec['blur_kernel_size'] = F.dark_kernel_size(codec['sigma'])
    cfg.custom_imports = dict(imports=IMPORTS, allow_failed_imports=False)
    cfg.codec = codec
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        # Networks are trained side by side, so that a loader's own processes gain
        # nothing.
        loader.update(num_workers=0, persistent_workers=False)
        for step in loader.dataset.pipeline:
            if 'encoder' in step:
                step['encoder'] = codec
            step.update(arm.transforms.get(step['type'], {}))
    cfg.train_pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.val_pipeline = cfg.test_dataloader.dataset.pipeline
    # One by one: update() would merge a loss with the stock one.
    for key, value in {**arm.head, 'decoder': codec}.items():
        cfg.model.head[key] = value
    # Stock combined targets train without it only.
    cfg.model.train_cfg = dict(compute_acc=False)
    has_offsets = codec['type'] == names.CODECS['offset'] or 'heatmap_type' in codec
    cfg.model.test_cfg = dict(
        flip_test=test.flip != 'off',
        flip_mode='udp_combined' if has_offsets else 'heatmap',
        shift_heatmap=test.flip == 'shifted',
    )
    return cfg
