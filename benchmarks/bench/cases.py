"""What is measured: each operation with its contenders and with its right answers."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from mmpose.models.losses.heatmap_loss import CombinedTargetMSELoss
from mmpose.models.utils.tta import flip_heatmaps
from mmpose.utils.tensor_utils import to_numpy
from torch import Tensor

from udp_plugin import functional as F

from .answers import authors_decoding, compare, plain_reading
from .data import Setting
from .measure import ALL, ONE, Calls

BUILTIN = 'built-in'
#: The name of ours where there is one.
OURS = 'ours'
OPENCV = "authors', OpenCV"
#: Maps whose answers are compared, and their pixels in all.
CHECKED_MAPS, CHECKED_PIXELS = 500, 5_000_000


class Case(NamedTuple):
    """Contenders that do the same, on the data of a setting.

    Attributes:
        calls: The contenders by name.
        check: Compares what they return with the right answers; raises
            :class:`~.answers.WrongAnswer`.
        arrangements: In which they are timed.
    """

    operation: str
    setting: Setting
    calls: Calls
    check: Callable[[], None]
    arrangements: Sequence[str] = (ALL,)


def decode(setting: Setting, arrangements: Sequence[str] = (ALL,)) -> Case:
    """A batch of maps to keypoints."""
    maps = setting.maps
    calls: Calls = {BUILTIN: partial(_builtin_decoding, setting)}
    if 'authors' in setting.ours:
        radius = setting.coder.radius
        calls[OPENCV] = lambda: authors_decoding(to_numpy(maps), radius)
    for name, codec in setting.ours.items():
        calls[name] = partial(codec.batch_decode, maps)
    check = partial(_check_decoded, setting, calls)
    return Case('decode', setting, calls, check, arrangements)


def decode_in_a_graph(setting: Setting) -> Case:
    """The same by onnxruntime, in a graph of the decoding alone."""
    from onnxruntime import InferenceSession

    from udp_plugin.export import OPSET
    from udp_plugin.export.graph import write_decoding

    inputs = dict(maps=setting.maps.numpy())
    calls: Calls = {BUILTIN: partial(_builtin_decoding, setting)}
    with TemporaryDirectory() as folder:
        for name, codec in setting.ours.items():
            path = Path(folder, f'{name}.onnx')
            write_decoding(path, codec, setting.size.keypoints, OPSET)
            session = InferenceSession(str(path), providers=['CPUExecutionProvider'])
            calls[name] = partial(session.run, None, inputs)
    check = partial(_check_decoded, setting, calls, toolbox_px=False)
    return Case('decode in a graph', setting, calls, check)


def _builtin_decoding(setting: Setting) -> list:
    """Keypoints and scores of each sample, as ``BaseHead.decode`` has them."""
    maps = to_numpy(setting.maps, unzip=True)
    return [setting.stock.decode(sample) for sample in maps]


def _check_decoded(setting: Setting, calls: Calls, toolbox_px: bool = True) -> None:
    """Compare what contenders read with the plain reading, and with each other.

    Ours returns all keypoints, in the toolbox's pixels or in input px, and all scores;
    the built-in, always in the toolbox's, both of one sample after another.
    """
    maps = setting.maps.reshape(-1, setting.channels, *setting.shape[2:])
    most = min(CHECKED_MAPS, CHECKED_PIXELS // maps[0, 0].numel())
    chosen = np.random.default_rng(0).permutation(len(maps))[:most]
    maps = maps[torch.from_numpy(chosen).to(maps.device)].cpu().numpy()

    def in_heatmap_px(keypoints: List[np.ndarray], toolbox_px: bool) -> np.ndarray:
        points = np.concatenate(keypoints).reshape(-1, 2)[chosen].astype(np.float64)
        if toolbox_px:
            points = F.toolbox_to_input(points, setting.sizes[0])
        return F.input_to_heatmap(points, *setting.sizes)

    builtin = in_heatmap_px([keypoints for keypoints, _ in calls[BUILTIN]()], True)
    others = {'DARK': builtin, 'toolbox': builtin}
    if OPENCV in calls:
        others['authors'] = np.array(calls[OPENCV]()[0])[chosen]
    # Of noise, rounding decides more often what is its top, and how flat it is.
    share = 0.01 if setting.kind == 'network' else 0.25
    for name, codec in setting.ours.items():
        keypoints, scores = calls[name]()
        keypoints = in_heatmap_px(keypoints, toolbox_px)
        scores = np.concatenate(scores).ravel()[chosen]
        plain = zip(*(plain_reading(each, codec) for each in maps))
        right, right_scores = map(np.array, plain)
        compare(f'{name} against float64, px', keypoints, right, 1e-4, share)
        compare(f'{name} against float64, score', scores, right_scores, 1e-4, share)
        if name in others and setting.kind == 'network':
            # Others read a Gaussian near the border, or a flat one, in another way.
            what = f'{name} against the built-in or OpenCV, px'
            compare(what, keypoints, others[name], 1e-3, share=0.7)


def encode(setting: Setting) -> Case:
    """One sample's keypoints to its target, as a data loader's worker does it."""
    keypoints, visible = _drawn_keypoints(setting)
    codecs = {BUILTIN: setting.stock, OURS: setting.coder}
    calls = {name: partial(c.encode, keypoints, visible) for name, c in codecs.items()}

    def check() -> None:
        compare_targets(setting, *(calls[n]()['heatmaps'] for n in (OURS, BUILTIN)))

    return Case('encode', setting, calls, check, (ONE,))


def encode_batch(setting: Setting) -> Case:
    """A batch's keypoints to its target, at once."""
    keypoints, visible = _drawn_keypoints(setting)
    on_device = torch.from_numpy(keypoints).to(setting.device)

    def builtin() -> Tensor:
        # The samples of workers, joined as a head does it.
        encoded = [setting.stock.encode(each[None], visible) for each in keypoints]
        maps = [torch.from_numpy(each['heatmaps']) for each in encoded]
        return torch.stack([each.to(setting.device) for each in maps])

    def ours() -> Tensor:
        return setting.coder.encode_batch(on_device)[0]

    def check() -> None:
        compare_targets(setting, *(call().cpu().numpy() for call in (ours, builtin)))

    return Case('encode a batch', setting, {BUILTIN: builtin, OURS: ours}, check)


def _drawn_keypoints(setting: Setting) -> Tuple[np.ndarray, np.ndarray]:
    """Keypoints (B, K, 2), input px, and the visibility of a sample's, (1, K)."""
    points = setting.points(setting.batch, setting.size.keypoints)
    visible = np.ones((1, setting.size.keypoints), np.float32)
    return F.heatmap_to_input(points, *setting.sizes), visible


def compare_targets(
    setting: Setting, maps: np.ndarray, expected: np.ndarray, allowed: float = 1e-5
) -> None:
    """Compare targets with the built-in's.

    Rounding decides on some pixels at the edge of a disc, and where a Gaussian between
    two pixels is cut off.
    """
    shape = (-1, setting.channels, *setting.shape[2:])
    maps, expected = (m.reshape(shape)[:CHECKED_MAPS] for m in (maps, expected))
    # Outside the disc, the built-in's offsets go on.
    expected[:, 1:] *= expected[:, :1]
    compare('target against the built-in', maps, expected, allowed, share=1e-3)


def loss(setting: Setting) -> Case:
    """The loss of offset maps and its gradient."""
    target, maps = setting.drawn
    drawn = setting.rng.random((setting.batch, setting.size.keypoints)) > 0.1
    weights = torch.from_numpy(drawn.astype(np.float32)).to(setting.device)
    data = maps, target, weights
    losses = {
        BUILTIN: CombinedTargetMSELoss(use_target_weight=True),
        'the default': F.offset_loss,
        'published': partial(F.offset_loss, published=True),
    }
    calls = {n: partial(_value_and_gradient, each, *data) for n, each in losses.items()}

    def check() -> None:
        sample = [each[:1] for each in data]
        both = sample, [each.double() for each in sample]
        default = [_value_and_gradient(F.offset_loss, *each) for each in both]
        published = calls['published'](), calls[BUILTIN]()
        for name, (came, expected) in (
            ('published against the built-in', published),
            ('the default against float64', default),
        ):
            compare(name, (came[0] / expected[0]).item(), 1, 1e-5)
            # On the device: there are many.
            off = (came[1] - expected[1]).abs().max() / expected[1].abs().max()
            compare(f'{name}, gradient', off.item(), 0, 1e-4)

    return Case('loss', setting, calls, check)


def _value_and_gradient(loss: Callable, maps: Tensor, *data) -> Tuple[Tensor, Tensor]:
    maps = maps.detach().requires_grad_()
    value = loss(maps, *data)
    return value.detach(), torch.autograd.grad(value, maps)[0]


def flip(setting: Setting) -> Case:
    """The mean of maps and of those of the mirrored input."""
    maps, channels = setting.maps, setting.channels
    mirrored = maps.flip(-1)
    mode = 'heatmap' if channels == 1 else 'udp_combined'
    flip_indices = list(range(setting.size.keypoints))[::-1]

    def builtin() -> Tensor:
        # As HeatmapHead.predict does it.
        flipped = flip_heatmaps(mirrored, flip_indices, mode, shift_heatmap=False)
        return (maps + flipped) * 0.5

    ours = partial(F.flip_average, maps, mirrored, flip_indices, channels)

    def check() -> None:
        off = (ours() - builtin()).abs().max().item()
        compare('flip_average against the built-in', off, 0, 1e-5)

    return Case('flip', setting, {BUILTIN: builtin, OURS: ours}, check)
