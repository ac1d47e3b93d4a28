"""What the study trains, and under which configs it tests what it trained."""

import copy
from typing import Dict, List, NamedTuple, Tuple

from mmengine.config import Config

from udp_plugin import functional as F
from udp_plugin.functional.loss import OFFSET_WEIGHT, OFFSET_WINDOW

IMPORTS = ['udp_plugin', 'benchmarks.study.components']
KEYPOINTS = 17
#: A Gaussian of which DARK makes more here, in the stock one's sigma. MSRAHeatmap draws
#: it beside its pixel.
NARROW = 0.75
#: The default R of discs, as a share of the maps' longer side.
RADIUS_FACTOR = F.RADIUS_PER_SIGMA / 32


class Size(NamedTuple):
    """A network's input, and how many of its pixels a heatmap pixel is."""

    input_size: Tuple[int, int]
    stride: int

    @property
    def heatmap_size(self) -> Tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.input_size
        return width // self.stride, height // self.stride

    @property
    def sigma(self) -> float:
        """Of stock Gaussians, heatmap px: a 32nd of the longer side, as in the zoo.

        But at least 1, below which there is too little to read from.
        """
        return max(max(self.heatmap_size) / 32, 1)

    @property
    def name(self) -> str:
        """For folders and JSON keys."""
        return '{}x{}_stride{}'.format(*self.input_size, self.stride)

    @property
    def label(self) -> str:
        """For people."""
        return '{}×{}, stride {}'.format(*self.input_size, self.stride)


class Arm(NamedTuple):
    """A way to process data: the components that a config names."""

    label: str
    transform: dict
    target: str
    #: ``sigma`` counts in that of the size.
    codec: dict
    head: dict
    #: Whether the flip test shifts, as its configs in the zoo have it.
    shift: bool = False
    flip_mode: str = 'heatmap'


BIASED = dict(transform=dict(type='TopdownAffine'), target='GenerateTarget')
STOCK_UDP = dict(
    transform=dict(type='TopdownAffine', use_udp=True), target='GenerateTarget'
)
OURS = dict(
    transform=dict(type='TopDownAffineUDP'),
    target='OffsetTargetGenerator',
)
STOCK_HEAD = dict(type='HeatmapHead', out_channels=KEYPOINTS)
OUR_HEAD = dict(type='UDPHeatmapHead', out_channels=KEYPOINTS)

#: What is compared.
GRID = {
    'stock_biased': Arm(
        label='stock: MSRAHeatmap',
        codec=dict(type='MSRAHeatmap', sigma=1),
        head=STOCK_HEAD,
        shift=True,
        **BIASED,
    ),
    'stock_dark': Arm(
        label='stock: MSRAHeatmap, unbiased=True (DARK)',
        codec=dict(type='MSRAHeatmap', sigma=1, unbiased=True),
        head=STOCK_HEAD,
        shift=True,
        **BIASED,
    ),
    'stock_udp': Arm(
        label='stock: UDPHeatmap',
        codec=dict(type='UDPHeatmap', sigma=1),
        head=STOCK_HEAD,
        **STOCK_UDP,
    ),
    'stock_combined': Arm(
        label='stock: UDPHeatmap, combined',
        codec=dict(type='UDPHeatmap', heatmap_type='combined'),
        head=dict(
            type='HeatmapHead',
            out_channels=3 * KEYPOINTS,
            loss=dict(type='CombinedTargetMSELoss', use_target_weight=True),
        ),
        flip_mode='udp_combined',
        **STOCK_UDP,
    ),
    'udp_gaussian': Arm(
        label='UDPGaussianHeatmap',
        codec=dict(type='UDPGaussianHeatmap', sigma=1),
        head=OUR_HEAD,
        **OURS,
    ),
    'udp_gaussian_narrow': Arm(
        label=f'UDPGaussianHeatmap, sigma × {NARROW}',
        codec=dict(type='UDPGaussianHeatmap', sigma=NARROW),
        head=OUR_HEAD,
        **OURS,
    ),
    'udp_offset': Arm(
        label='UDPOffsetHeatmap',
        codec=dict(type='UDPOffsetHeatmap'),
        head=OUR_HEAD,
        **OURS,
    ),
}
#: For the paper's ablation, beside those of the grid.
TRANSFORM_ONLY = Arm(
    label='unbiased transform, biased codec',
    codec=dict(type='RoundedHeatmap', sigma=1),
    head=STOCK_HEAD,
    **OURS,
)
ARMS = {**GRID, 'transform_only': TRANSFORM_ONLY}


def _tried(label: str, head: dict, loss: dict, **codec) -> Arm:
    return Arm(
        label=label,
        codec=dict(type='UDPOffsetHeatmap', **codec),
        head=dict(head, loss=loss),
        flip_mode='udp_combined',
        **OURS,
    )


def _tried_loss(label: str, **settings) -> Arm:
    # The stock head takes any loss, and three maps a keypoint as such.
    head = dict(STOCK_HEAD, out_channels=3 * KEYPOINTS)
    loss = dict(error='absolute', weight=OFFSET_WEIGHT, inner=OFFSET_WINDOW)
    loss.update(settings, type='TriedOffsetLoss')
    return _tried(label, head, loss)


def _tried_radius(factor: float) -> Arm:
    loss = dict(type='UDPOffsetLoss', use_target_weight=True)
    label = f'radius {factor:g} of the longer side ({RADIUS_FACTOR:.2g})'
    return _tried(label, OUR_HEAD, loss, radius_factor=factor)


#: What the default loss and radius of the offset codec were chosen from.
TRIED = {
    'published': _tried(
        'as published',
        OUR_HEAD,
        dict(type='UDPOffsetLoss', use_target_weight=True, published=True),
    ),
    'squared': _tried_loss('squared error, weight 0.02', error='squared', weight=0.02),
    'smooth': _tried_loss('smooth L1, weight 0.05', error='smooth', weight=0.05),
    'even': _tried_loss('all of the disc weighed alike', inner=None),
    'heaviest': _tried_loss('absolute error, weight 0.05', weight=0.05),
    'heavier': _tried_loss('absolute error, weight 0.0125', weight=0.0125),
    'lighter': _tried_loss('absolute error, weight 0.003', weight=0.003),
    'small': _tried_radius(0.04),
    'large': _tried_radius(0.07),
}
ALL_ARMS = {**ARMS, **TRIED}


class Test(NamedTuple):
    """A trained network under a config: its own, or another's."""

    network: str
    arm: str
    #: The flip test: ``'off'``, ``'plain'``, or ``'shifted'`` by a heatmap pixel.
    flip: str

    @property
    def name(self) -> str:
        """For folders and JSON keys."""
        return f'{self.arm}_{self.flip}'


def own_flip(arm: str) -> str:
    """The flip test that the arm's configs in the zoo have."""
    return 'shifted' if ALL_ARMS[arm].shift else 'plain'


#: Rows and columns of the ablation: the unbiased transform, the unbiased codec.
ABLATION = {
    (False, False): 'stock_biased',
    (False, True): 'stock_dark',
    (True, False): 'transform_only',
    (True, True): 'stock_udp',
}
#: Networks whose maps are read in several ways, and the arm that reads them all.
READ = ('udp_offset', 'stock_combined')
READING_ARM = 'udp_offset'
#: Trained one way and tested the other: (network, arm).
MISMATCHES = [('stock_dark', 'stock_udp'), ('stock_udp', 'stock_dark')]


def trained(tried: bool) -> List[str]:
    """The networks of one size and seed, with those of :data:`TRIED` or without."""
    return list(ALL_ARMS if tried else ARMS)


def tests(tried: bool) -> List[Test]:
    """All tests of the networks of one size and seed; see :func:`trained`."""
    found = [Test(arm, arm, flip) for arm in GRID for flip in ('off', own_flip(arm))]
    found += [
        Test(arm, arm, flip)
        for arm in ABLATION.values()
        for flip in ('off', 'plain', 'shifted')
    ]
    found += [Test(network, arm, own_flip(arm)) for network, arm in MISMATCHES]
    if tried:
        found += [Test(arm, arm, own_flip(arm)) for arm in TRIED]
    return list(dict.fromkeys(found))


def configure(stock: Config, arm: Arm, flip: str = 'plain') -> Config:
    """The stock config with an arm's components.

    Args:
        stock: The demo's stock config.
        arm: The components.
        flip: See :class:`Test`.
    """
    cfg = copy.deepcopy(stock)
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
        # Jobs run side by side, so that a loader's own processes gain nothing.
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.pipeline = [
            _swapped(step, arm, codec) for step in loader.dataset.pipeline
        ]
    cfg.train_pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.val_pipeline = cfg.test_dataloader.dataset.pipeline
    # One by one: update() would merge a loss with the stock one.
    for key, value in {**arm.head, 'decoder': codec}.items():
        cfg.model.head[key] = value
    # Stock combined targets train without it only.
    cfg.model.train_cfg = dict(compute_acc=False)
    cfg.model.test_cfg = dict(
        flip_test=flip != 'off',
        flip_mode=arm.flip_mode,
        shift_heatmap=flip == 'shifted',
    )
    return cfg


def _swapped(step: dict, arm: Arm, codec: Dict) -> dict:
    if step['type'] == 'TopdownAffine':
        return dict(input_size=codec['input_size'], **arm.transform)
    if step['type'] == 'GenerateTarget':
        return dict(type=arm.target, encoder=codec)
    return step
