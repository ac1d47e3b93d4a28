"""What is measured: each operation with its contenders and with its right answers."""

import importlib
import sys
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmpose.codecs import UDPHeatmap
from mmpose.utils.tensor_utils import to_numpy
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.codecs import UDPGaussianHeatmap, UDPOffsetHeatmap
from udp_plugin.functional.loss import OFFSET_WEIGHT, OFFSET_WINDOW

from .answers import (
    Plain,
    authors_decoding,
    choose,
    compare,
    plain_dark,
    plain_offset,
)
from .data import NOISES, Size, draw_points, network_maps, noise_maps
from .measure import Calls

BUILTIN = 'built-in'
#: The name of ours where there is one.
OURS = 'ours'
OPENCV = "authors', OpenCV"
#: A plain mean squared error of as many maps: what a loss costs at least.
PLAIN_MSE = 'KeypointMSELoss'
#: Contenders that are not ours.
OTHERS = (BUILTIN, OPENCV, PLAIN_MSE)
CODECS = ('gaussian', 'offset')

#: Answers: heatmap px and heights of our readings, of others' in float32; maps.
SAME, NEAR, SAME_MAPS = 1e-4, 1e-3, 1e-5
#: Maps whose plain reading is computed, and their pixels in all.
CHECKED_MAPS, CHECKED_PIXELS = 500, 5_000_000
#: Samples whose gradient is computed in float64.
CHECKED_GRADIENTS = 3


class Facts(NamedTuple):
    """What a case is about."""

    #: What the contenders do.
    operation: str
    #: ``'gaussian'`` or ``'offset'``.
    codec: str
    size: Size
    #: Samples a call.
    batch: int
    #: ``'network'`` or a key of :data:`~.data.NOISES`.
    maps: str = 'network'
    #: Bytes that have to be read or written at least.
    touched: int = 0
    #: Whether it runs in one thread.
    worker: bool = False

    @property
    def label(self) -> str:
        """For people."""
        maps = '' if self.maps == 'network' else f', {self.maps}'
        return (
            f'{self.operation}, {self.codec} codec, {self.size.label}, '
            f'batch {self.batch}{maps}'
        )


class Case(NamedTuple):
    """Contenders that do the same."""

    facts: Facts
    #: The contenders by name.
    calls: Calls
    #: Compares what they return with the right answers, and says of how many maps.
    check: Callable[[], int]
    #: To spend on it.
    seconds: float
    #: What contenders add to the file of a model.
    file_bytes: Dict[str, int] = {}


def stock_module(name: str) -> ModuleType:
    """A module of MMPose's models, by itself where the others cannot be imported.

    Importing ``mmpose.models`` takes mmcv's compiled operations, mmdet and xtcocotools,
    of which these modules use nothing.
    """
    full = f'mmpose.models.{name}'
    try:
        return importlib.import_module(full)
    except ImportError:
        if full not in sys.modules:
            path = Path(find_spec('mmpose').origin).parent / 'models'
            path = path.joinpath(*name.split('.')).with_suffix('.py')
            spec = spec_from_file_location(full, path)
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            # Its classes are registered, which goes only once.
            sys.modules[full] = module
        return sys.modules[full]


class Setting:
    """A codec, ours and the built-in one, and data of a size.

    Args:
        codec: ``'gaussian'`` or ``'offset'``.
        size: The skeleton and its maps.
        batch: Samples.
        device: Where the maps are.
        seconds: To spend on a case.
        maps: ``'network'`` or a key of :data:`~.data.NOISES`.
        checked_maps: How many maps are compared at most.
    """

    def __init__(
        self,
        codec: str,
        size: Size,
        batch: int,
        device: str,
        seconds: float,
        maps: str = 'network',
        checked_maps: int = CHECKED_MAPS,
    ) -> None:
        self.codec, self.size, self.batch = codec, size, batch
        self.device, self.seconds, self.kind = device, seconds, maps
        self.checked_maps = min(checked_maps, CHECKED_PIXELS // size.pixels)
        sizes = size.input_size, size.heatmap_size
        if codec == 'gaussian':
            self.ours = {'DARK': UDPGaussianHeatmap(*sizes, sigma=size.sigma)}
            dark = self.ours['DARK'].blur_kernel_size
            self.stock = UDPHeatmap(*sizes, sigma=size.sigma, blur_kernel_size=dark)
        else:
            self.ours = {
                reading: UDPOffsetHeatmap(*sizes, sigma=size.sigma, reading=reading)
                for reading in F.READINGS
            }
            factor = next(iter(self.ours.values())).radius / max(size.heatmap_size)
            self.stock = UDPHeatmap(
                *sizes, heatmap_type='combined', radius_factor=factor
            )
        #: The default one.
        self.coder = next(iter(self.ours.values()))
        self.channels = self.coder.channels_per_keypoint
        self.rng = np.random.default_rng(0)
        self._drawn: Optional[Tuple[Tensor, Tensor, Tensor]] = None

    @property
    def map_bytes(self) -> int:
        """Of a batch's maps."""
        count = self.batch * self.size.keypoints * self.channels
        return 4 * self.size.pixels * count

    @property
    def drawn(self) -> Tuple[Tensor, Tensor, Tensor]:
        """Keypoints, target and maps, drawn when they are first asked for."""
        if self._drawn is None:
            drawn = network_maps(self.coder, self.size, self.batch, self.rng)
            self._drawn = tuple(each.to(self.device) for each in drawn)
        return self._drawn

    @property
    def maps(self) -> Tensor:
        """Shape (B, K * C, H, W)."""
        if self.kind == 'network':
            return self.drawn[2]
        height = NOISES[self.kind]
        return noise_maps(self.coder, self.size, self.batch, height).to(self.device)

    def case(self, operation: str, calls: Calls, check: Callable, **facts) -> Case:
        """A case of this setting."""
        facts = dict(
            codec=self.codec,
            size=self.size._replace(batches=()),
            maps=self.kind,
            **{'batch': self.batch, **facts},
        )
        return Case(Facts(operation, **facts), calls, check, self.seconds)


# --- decode ---------------------------------------------------------------------------


def decode(setting: Setting, only_default: bool = False) -> Case:
    """A batch of maps to keypoints.

    Args:
        setting: The data.
        only_default: Leave out other readings than the default, and the authors'.
    """
    maps, stock = setting.maps, setting.stock

    def builtin() -> list:
        # As BaseHead.decode does it.
        return [stock.decode(sample) for sample in to_numpy(maps, unzip=True)]

    calls: Calls = {BUILTIN: builtin}
    if setting.codec == 'offset' and not only_default:
        radius = setting.coder.radius
        calls[OPENCV] = lambda: authors_decoding(to_numpy(maps), radius)
    for name, codec in setting.ours.items():
        if codec is setting.coder or not only_default:
            calls[name] = partial(codec.batch_decode, maps)

    return setting.case(
        'decode',
        calls,
        lambda: check_decoded(setting, maps, calls),
        # No reading can do without a pass over the maps with the peaks.
        touched=setting.map_bytes // setting.channels,
    )


def check_decoded(setting: Setting, maps: Tensor, calls: Calls) -> int:
    """Compare what contenders read with the right answers, and with each other.

    Args:
        setting: Where the maps are from.
        maps: Shape (B, K * C, H, W).
        calls: Each returns keypoints as the toolbox's estimator expects them, and
            scores, for each sample; the built-in's, both for each.
    """
    size = setting.size
    chosen = choose(setting.batch * size.keypoints, setting.checked_maps)
    flat = maps.unflatten(1, (size.keypoints, setting.channels)).flatten(0, 1)
    sample = flat[torch.from_numpy(chosen).to(flat.device)].cpu().numpy()

    def in_heatmap_px(keypoints: List[np.ndarray]) -> np.ndarray:
        points = np.concatenate(keypoints).reshape(-1, 2)[chosen].astype(np.float64)
        points = F.toolbox_to_input(points, size.input_size)
        return F.input_to_heatmap(points, size.input_size, size.heatmap_size)

    builtin = in_heatmap_px([keypoints for keypoints, _ in calls[BUILTIN]()])
    others = dict(DARK=('the built-in', builtin), toolbox=('the built-in', builtin))
    if OPENCV in calls:
        others['authors'] = ('OpenCV', np.array(calls[OPENCV]()[0])[chosen])
    for name, codec in setting.ours.items():
        if name not in calls:
            continue
        right = _plain(name, codec, sample)
        keypoints, scores = calls[name]()
        keypoints = in_heatmap_px(keypoints)
        scores = np.concatenate(scores).ravel()[chosen]
        compare(
            f'{name} against float64, heatmap px',
            keypoints[right.clear],
            right.keypoint[right.clear],
            np.maximum(SAME, right.rounding[right.clear])[:, None],
        )
        compare(
            f'{name} against float64, score',
            scores[right.clear],
            right.score[right.clear],
            SAME,
        )
        if name in others:
            other, theirs = others[name]
            compare(
                f'{name} against {other}, heatmap px',
                keypoints[right.as_others],
                theirs[right.as_others],
                NEAR,
            )
    return len(chosen)


def _plain(name: str, codec: Any, maps: np.ndarray) -> Plain:
    """The plain readings of maps (N, C, H, W), their fields as arrays."""
    if name == 'DARK':
        readings = [plain_dark(h, codec.blur_kernel_size) for (h,) in maps]
    else:
        kernel_size = dict(
            voting=2 * int(2 * codec.radius) + 1,
            authors=15,
            toolbox=2 * codec.blur_kernel_size + 1,
        )[name]
        readings = [plain_offset(m, codec.radius, name, kernel_size) for m in maps]
    return Plain(*map(np.array, zip(*readings)))


# --- encode ---------------------------------------------------------------------------


def _keypoints(setting: Setting, batch: int) -> np.ndarray:
    """Shape (B, K, 2), input px."""
    size = setting.size
    points = draw_points(size, (batch, size.keypoints), setting.rng)
    return F.heatmap_to_input(points, size.input_size, size.heatmap_size)


def encode(setting: Setting) -> Case:
    """A sample's keypoints to its target, as a data loader's worker does it."""
    keypoints = _keypoints(setting, 1)
    visible = np.ones(keypoints.shape[:2], np.float32)
    builtin = partial(setting.stock.encode, keypoints, visible)
    ours = partial(setting.coder.encode, keypoints, visible)

    def check() -> int:
        maps = ours()['heatmaps'], builtin()['heatmaps']
        return _check_encoded(setting, keypoints, *(each[None] for each in maps))

    return setting.case(
        'encode',
        {BUILTIN: builtin, OURS: ours},
        check,
        batch=1,
        touched=setting.map_bytes // setting.batch,
        worker=True,
    )


def encode_batch(setting: Setting) -> Case:
    """A batch's keypoints to its target, at once."""
    keypoints = _keypoints(setting, setting.batch)
    visible = np.ones((1, setting.size.keypoints), np.float32)
    on_device = torch.from_numpy(keypoints).to(setting.device)

    def builtin() -> Tensor:
        # The samples of workers, joined as a head does it.
        encoded = [setting.stock.encode(each[None], visible) for each in keypoints]
        maps = [torch.from_numpy(each['heatmaps']) for each in encoded]
        return torch.stack([each.to(setting.device) for each in maps])

    def ours() -> Tensor:
        return setting.coder.encode_batch(on_device)[0]

    def check() -> int:
        maps = ours(), builtin()
        return _check_encoded(
            setting, keypoints, *(each.cpu().numpy() for each in maps)
        )

    return setting.case(
        'encode a batch',
        {BUILTIN: builtin, OURS: ours},
        check,
        touched=setting.map_bytes,
    )


def _check_encoded(
    setting: Setting, keypoints: np.ndarray, maps: np.ndarray, expected: np.ndarray
) -> int:
    """Compare targets (B, K * C, H, W) of keypoints (B, K, 2) with the built-in's."""
    size, name = setting.size, 'target against the built-in'
    points = F.input_to_heatmap(
        keypoints.astype(np.float64), size.input_size, size.heatmap_size
    )
    points = points.reshape(-1, 2)
    if setting.codec == 'gaussian':
        maps, expected = (each.reshape(-1, size.pixels) for each in (maps, expected))
        # Between pixels, rounding decides around which of them the Gaussian is cut off.
        clear = (np.abs(points % 1 - 0.5) > SAME).all(-1)
        compare(name, maps[clear], expected[clear], SAME_MAPS)
        return int(clear.sum())
    width, height = size.heatmap_size
    y, x = np.mgrid[:height, :width]
    maps, expected = (each.reshape(-1, 3, height, width) for each in (maps, expected))
    for k in choose(len(points), setting.checked_maps):
        edge = np.hypot(x - points[k, 0], y - points[k, 1]) - setting.coder.radius
        # On it, rounding decides.
        disc, outside = edge < -SAME, edge > SAME
        clear = disc | outside
        compare(f'{name}, H of map {k}', maps[k, 0][clear], expected[k, 0][clear], 0)
        compare(
            f'{name}, X and Y of map {k}',
            maps[k, 1:, disc],
            expected[k, 1:, disc],
            SAME_MAPS,
        )
        compare(f'{name}, outside the disc of map {k}', maps[k, 1:, outside], 0, 0)
    return len(points)


# --- loss -----------------------------------------------------------------------------


def loss(setting: Setting) -> Case:
    """The loss of offset maps and its gradient."""
    losses = stock_module('losses.heatmap_loss')
    stock = losses.CombinedTargetMSELoss(use_target_weight=True)
    plain = losses.KeypointMSELoss(use_target_weight=True)
    _, target, maps = setting.drawn
    drawn = setting.rng.random((setting.batch, setting.size.keypoints)) > 0.1
    weights = torch.from_numpy(drawn.astype(np.float32)).to(setting.device)
    weights_of_maps = weights.repeat_interleave(3, 1)
    maps = maps.detach().requires_grad_()

    def with_gradient(value: Callable[..., Tensor], *weights, **kwargs) -> Callable:
        def call() -> Tuple[Tensor, Tensor]:
            loss = value(maps, target, *weights, **kwargs)
            return loss.detach(), torch.autograd.grad(loss, maps)[0]

        return call

    calls: Calls = {
        BUILTIN: with_gradient(stock, weights),
        PLAIN_MSE: with_gradient(plain, weights_of_maps),
        'the default': with_gradient(F.offset_loss, weights),
        'published': with_gradient(F.offset_loss, weights, published=True),
    }

    def check() -> int:
        name = 'published loss against the built-in'
        (value, gradient), (expected, right) = calls['published'](), calls[BUILTIN]()
        compare(name, value.item(), expected.item(), 1e-5 * expected.item())
        _compare_gradients(name, gradient, right)
        del gradient, right
        _check_loss(*calls['the default'](), maps.detach(), target, weights)
        return weights.numel()

    # Maps and target read, the gradient written.
    return setting.case('loss', calls, check, touched=3 * setting.map_bytes)


def _compare_gradients(name: str, came: Tensor, expected: Tensor) -> None:
    # On the device: there are many.
    highest = expected.abs().max().item()
    off = (came - expected).abs().max().item()
    compare(f'{name}, gradient: largest difference', off, 0, 1e-4 * highest)


def _check_loss(
    value: Tensor, gradient: Tensor, maps: Tensor, target: Tensor, weights: Tensor
) -> None:
    """The default loss as its formula says, in float64."""
    name = 'default loss against float64'
    batch = len(maps)
    chosen = choose(batch, CHECKED_GRADIENTS)
    total = 0.0
    for b in range(batch):
        output = maps[b].double().requires_grad_(b in chosen)
        h, x, y = output.unflatten(0, (-1, 3)).unbind(1)
        right_h, right_x, right_y = target[b].double().unflatten(0, (-1, 3)).unbind(1)
        weight = weights[b].double()
        square = right_x**2 + right_y**2
        g = right_h * torch.exp(-square / (2 * OFFSET_WINDOW**2))
        far = g * ((x - right_x).abs() + (y - right_y).abs())
        offsets = far.sum((1, 2)) / g.sum((1, 2))
        classes = ((h - right_h) ** 2).mean((1, 2)) / 2
        loss = (weight**2 * classes + OFFSET_WEIGHT * weight * offsets).mean() / batch
        total += loss.item()
        if b in chosen:
            (right,) = torch.autograd.grad(loss, output)
            _compare_gradients(f'{name}, sample {b}', gradient[b], right)
    compare(name, value.item(), total, 1e-5 * total)


# --- flip -----------------------------------------------------------------------------


def flip(setting: Setting) -> Case:
    """The mean of maps and of those of the mirrored input."""
    flip_heatmaps = stock_module('utils.tta').flip_heatmaps
    keypoints, channels, maps = setting.size.keypoints, setting.channels, setting.maps
    mirrored = maps.flip(-1)
    mode = 'heatmap' if channels == 1 else 'udp_combined'
    # The first is its own mirror image, as a nose, then come left and right in turn.
    flip_indices = list(range(keypoints))
    for k in range(1, keypoints - 1, 2):
        flip_indices[k], flip_indices[k + 1] = k + 1, k

    def builtin() -> Tensor:
        # As HeatmapHead.predict does it.
        flipped = flip_heatmaps(mirrored, flip_indices, mode, shift_heatmap=False)
        return (maps + flipped) * 0.5

    ours = partial(F.flip_average, maps, mirrored, flip_indices, channels)

    def check() -> int:
        found = ours()
        off = (found - builtin()).abs().max().item()
        compare('flip_average against the built-in: largest difference', off, 0, SAME)

        def values(maps: Tensor, b: int, channel: int) -> np.ndarray:
            return maps[b, channel].cpu().double().numpy()

        chosen = choose(setting.batch * keypoints, setting.checked_maps // channels)
        for b, k in (divmod(each, keypoints) for each in chosen.tolist()):
            for c in range(channels):
                other = values(mirrored, b, channels * flip_indices[k] + c)[:, ::-1]
                other = -other if c == 1 else other
                mean = (values(maps, b, channels * k + c) + other) / 2
                name = f'flip_average, channel {c} of keypoint {k} of sample {b}'
                compare(name, values(found, b, channels * k + c), mean, SAME_MAPS)
        return channels * len(chosen)

    # Both read, their mean written.
    return setting.case(
        'flip',
        {BUILTIN: builtin, OURS: ours},
        check,
        touched=3 * setting.map_bytes,
    )
