"""What is measured: each operation with its contenders and with its right answers."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from mmpose.models.losses.heatmap_loss import CombinedTargetMSELoss, KeypointMSELoss
from mmpose.models.utils.tta import flip_heatmaps
from mmpose.utils.tensor_utils import to_numpy
from torch import Tensor, nn

from udp_plugin import functional as F

from .answers import Plain, authors_decoding, compare, plain_dark, plain_offset
from .data import Setting
from .measure import ALL, ONE, Calls

BUILTIN = 'built-in'
#: The name of ours where there is one.
OURS = 'ours'
OPENCV = "authors', OpenCV"
#: A plain mean squared error of as many maps: what a loss costs at least.
PLAIN_MSE = 'KeypointMSELoss'
#: Contenders that are not ours.
OTHERS = (BUILTIN, OPENCV, PLAIN_MSE)

#: Answers: heatmap px and heights of our readings, of others' in float32; maps.
SAME, NEAR, SAME_MAPS = 1e-4, 1e-3, 1e-5
#: Maps whose right answer is computed, their pixels in all, and samples of a loss.
CHECKED_MAPS, CHECKED_PIXELS, CHECKED_LOSSES = 500, 5_000_000, 3


class Case(NamedTuple):
    """Contenders that do the same, on the data of a setting.

    Attributes:
        calls: The contenders by name.
        check: Compares what they return with the right answers, and says of how many
            maps; raises :class:`~.answers.WrongAnswer`.
        arrangements: In which they are timed.
        file_bytes: What contenders add to the file of a model.
    """

    operation: str
    setting: Setting
    calls: Calls
    check: Callable[[], int]
    arrangements: Sequence[str] = (ALL,)
    file_bytes: Dict[str, int] = {}


def _checked(setting: Setting) -> np.ndarray:
    """Which of a batch's B * K keypoints are compared: always the same ones."""
    most = min(CHECKED_MAPS, CHECKED_PIXELS // int(np.prod(setting.shape[2:])))
    count = setting.batch * setting.size.keypoints
    return np.random.default_rng(0).permutation(count)[:most]


# --- decode ---------------------------------------------------------------------------


def decode(setting: Setting, arrangements: Sequence[str] = (ALL,)) -> Case:
    """A batch of maps to keypoints."""
    maps = setting.maps
    calls: Calls = {BUILTIN: partial(_builtin_decoding, setting, maps)}
    if 'authors' in setting.ours:
        radius = setting.coder.radius
        calls[OPENCV] = lambda: authors_decoding(to_numpy(maps), radius)
    for name, codec in setting.ours.items():
        calls[name] = partial(codec.batch_decode, maps)
    check = partial(_check_decoded, setting, calls)
    return Case('decode', setting, calls, check, arrangements)


def decode_in_a_graph(setting: Setting) -> Case:
    """Maps to keypoints in a graph; the built-in decodes maps that come out of one."""
    inputs = dict(maps=setting.maps.numpy(), factor=np.ones((), np.float32))
    network, least = _session(_LastLayer(), inputs, ['out'])

    def builtin() -> list:
        (out,) = network.run(None, inputs)
        return _builtin_decoding(setting, torch.from_numpy(out))

    calls: Calls = {BUILTIN: builtin}
    file_bytes: Dict[str, int] = {}
    for name, codec in setting.ours.items():
        layer = _LastLayer(codec.decode_tensors)
        session, size = _session(layer, inputs, ['keypoints', 'scores'])
        calls[name] = partial(session.run, None, inputs)
        file_bytes[name] = size - least
    check = partial(_check_decoded, setting, calls, toolbox_px=False)
    return Case('decode in a graph', setting, calls, check, file_bytes=file_bytes)


class _LastLayer(nn.Module):
    """Stands in for the end of a network: maps times a number, perhaps read."""

    def __init__(self, read: Callable = lambda maps: maps) -> None:
        super().__init__()
        self.read = read

    def forward(self, maps: Tensor, factor: Tensor):
        return self.read(maps * factor)


def _session(module: nn.Module, inputs: Dict[str, np.ndarray], outputs: list) -> tuple:
    """A module's session in onnxruntime, and its file's size in bytes."""
    from onnxruntime import InferenceSession

    from udp_plugin.export import OPSET
    from udp_plugin.export.writing import write_onnx

    examples = {name: torch.from_numpy(array) for name, array in inputs.items()}
    examples['maps'] = examples['maps'][:1].expand(2, -1, -1, -1)
    with TemporaryDirectory() as folder:
        path = Path(folder, 'graph.onnx')
        write_onnx(path, module, examples, outputs, {}, ['maps', *outputs], opset=OPSET)
        session = InferenceSession(str(path), providers=['CPUExecutionProvider'])
        return session, path.stat().st_size


def _builtin_decoding(setting: Setting, maps: Tensor) -> list:
    """Keypoints and scores of each sample, as ``BaseHead.decode`` has them."""
    return [setting.stock.decode(sample) for sample in to_numpy(maps, unzip=True)]


def _check_decoded(setting: Setting, calls: Calls, toolbox_px: bool = True) -> int:
    """Compare what contenders read with the right answers, and with each other.

    Args:
        setting: What was decoded.
        calls: Each returns all keypoints and all scores; the built-in's, both of one
            sample after another.
        toolbox_px: Whether our keypoints are in input px as the toolbox's estimator
            expects them, which the built-in's always are.
    """
    chosen, sizes = _checked(setting), (setting.input_size, setting.size.heatmap_size)
    maps = setting.maps.reshape(-1, setting.channels, *setting.shape[2:])
    maps = maps[torch.from_numpy(chosen).to(maps.device)].cpu().numpy()

    def in_heatmap_px(keypoints: List[np.ndarray], toolbox_px: bool) -> np.ndarray:
        points = np.concatenate(keypoints).reshape(-1, 2)[chosen].astype(np.float64)
        if toolbox_px:
            points = F.toolbox_to_input(points, setting.input_size)
        return F.input_to_heatmap(points, *sizes)

    builtin = in_heatmap_px([keypoints for keypoints, _ in calls[BUILTIN]()], True)
    others = {'DARK': builtin, 'toolbox': builtin}
    if OPENCV in calls:
        others['authors'] = np.array(calls[OPENCV]()[0])[chosen]
    for name, codec in setting.ours.items():
        right = plain_readings(name, codec, maps)
        clear, same = right.clear, right.as_others
        keypoints, scores = calls[name]()
        keypoints = in_heatmap_px(keypoints, toolbox_px)
        scores = np.concatenate(scores).ravel()[chosen]
        what = f'{name} against float64'
        compare(f'{what}, px', keypoints[clear], right.keypoint[clear], SAME)
        compare(f'{what}, score', scores[clear], right.score[clear], SAME)
        if name in others:
            what = f'{name} against another, px'
            compare(what, keypoints[same], others[name][same], NEAR)
    return len(chosen)


def plain_readings(name: str, codec: Any, maps: np.ndarray) -> Plain:
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


def encode(setting: Setting, in_a_worker: bool = False) -> Case:
    """A batch's keypoints to its target at once, or one sample's in a worker."""
    sizes = setting.input_size, setting.size.heatmap_size
    points = setting.points(setting.batch, setting.size.keypoints)
    keypoints = F.heatmap_to_input(points, *sizes)
    visible = np.ones((1, setting.size.keypoints), np.float32)
    on_device = torch.from_numpy(keypoints).to(setting.device)

    def samples() -> Tensor:
        # Of workers, joined as a head does it.
        encoded = [setting.stock.encode(each[None], visible) for each in keypoints]
        maps = [torch.from_numpy(each['heatmaps']) for each in encoded]
        return torch.stack([each.to(setting.device) for each in maps])

    calls: Calls = {
        BUILTIN: samples,
        OURS: lambda: setting.coder.encode_batch(on_device)[0],
    }
    if in_a_worker:
        calls = {
            name: lambda codec=codec: codec.encode(keypoints, visible)['heatmaps']
            for name, codec in ((BUILTIN, setting.stock), (OURS, setting.coder))
        }

    def check() -> int:
        chosen = _checked(setting)
        x, y = (
            F.input_to_heatmap(keypoints.astype(np.float64), *sizes)
            .reshape(-1, 2, 1, 1)[chosen]
            .swapaxes(0, 1)
        )
        shape = (-1, setting.channels, *setting.shape[2:])
        maps, expected = (
            np.asarray(torch.as_tensor(calls[name]()).cpu()).reshape(shape)[chosen]
            for name in (OURS, BUILTIN)
        )
        if setting.codec == 'gaussian':
            # Between pixels, rounding decides where the Gaussian is cut off.
            clear = np.minimum(np.abs(x % 1 - 0.5), np.abs(y % 1 - 0.5)) > SAME
        else:
            rows, columns = np.indices(shape[2:])
            edge = np.hypot(columns - x, rows - y) - setting.coder.radius
            # On the edge, rounding decides, and outside the built-in's offsets go on.
            clear = np.abs(edge) > SAME
            expected[:, 1:] *= edge[:, None] < 0
        off = (maps - expected) * clear[:, None]
        compare('target against the built-in', off, 0, SAME_MAPS)
        return len(chosen)

    operation = 'encode' if in_a_worker else 'encode a batch'
    return Case(operation, setting, calls, check, (ONE,) if in_a_worker else (ALL,))


# --- loss -----------------------------------------------------------------------------


def loss(setting: Setting) -> Case:
    """The loss of offset maps and its gradient."""
    target, maps = setting.drawn
    drawn = setting.rng.random((setting.batch, setting.size.keypoints)) > 0.1
    weights = torch.from_numpy(drawn.astype(np.float32)).to(setting.device)
    maps = maps.detach().requires_grad_()

    def with_gradient(value: Callable[..., Tensor], *weights, **kwargs) -> Callable:
        def call() -> Tuple[Tensor, Tensor]:
            loss = value(maps, target, *weights, **kwargs)
            return loss.detach(), torch.autograd.grad(loss, maps)[0]

        return call

    stock = CombinedTargetMSELoss(use_target_weight=True)
    plain = KeypointMSELoss(use_target_weight=True)
    calls: Calls = {
        BUILTIN: with_gradient(stock, weights),
        PLAIN_MSE: with_gradient(plain, weights.repeat_interleave(3, 1)),
        'the default': with_gradient(F.offset_loss, weights),
        'published': with_gradient(F.offset_loss, weights, published=True),
    }

    def compare_losses(name: str, came: tuple, expected: tuple) -> None:
        (value, gradient), (right, right_gradient) = came, expected
        compare(name, value.item() / right.item(), 1, 1e-5)
        # On the device: there are many.
        off = (gradient - right_gradient).abs().max() / right_gradient.abs().max()
        compare(f'{name}, gradient', off.item(), 0, 1e-4)

    def check() -> int:
        published = calls['published']()
        compare_losses('published against the built-in', published, calls[BUILTIN]())
        count = min(setting.batch, CHECKED_LOSSES)
        few = [each[:count].detach().double() for each in (maps, target, weights)]
        right = F.offset_loss(few[0].requires_grad_(), *few[1:])
        # A sample's gradient is that among the few, but for the number of samples.
        gradient = calls['the default']()[1][:count] * (setting.batch / count)
        came = F.offset_loss(*(each.detach().float() for each in few)), gradient
        expected = right, torch.autograd.grad(right, few[0])[0]
        compare_losses('default against float64', came, expected)
        return weights.numel()

    return Case('loss', setting, calls, check)


# --- flip -----------------------------------------------------------------------------


def flip(setting: Setting) -> Case:
    """The mean of maps and of those of the mirrored input."""
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
        off = (ours() - builtin()).abs().max().item()
        compare('flip_average against the built-in', off, 0, SAME_MAPS)
        return setting.batch * keypoints * channels

    return Case('flip', setting, {BUILTIN: builtin, OURS: ours}, check)
