"""How far an exported model is from MMPose's own inference.

Both get the same photographs and boxes: MMPose's ``inference_topdown`` with the
config's test pipeline and estimator, and :class:`udp_plugin.runtime.PoseModel` with the
file. The crops are the same to the bit, so that all that differs is the order of
float32's sums.
"""

from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import mmcv
import numpy as np
import onnxruntime
import torch
from mmpose.apis import inference_topdown

from udp_plugin import functional as F
from udp_plugin.codecs import UDPGaussianHeatmap
from udp_plugin.codecs.base import MapReading, UDPCodec
from udp_plugin.demo import figures
from udp_plugin.errors import UserError
from udp_plugin.runtime import PoseModel
from udp_plugin.runtime.checks import check_image
from udp_plugin.runtime.reading import read_photograph

from .graph import OUTPUTS
from .trained import Trained

#: What float32 may do to a coordinate, in input px, and to a score, of its own size
#: where that is beyond 1.
PX, SCORE = 1e-3, 1e-5
#: The share of keypoints in which it may do more: where two peaks of a map are as good
#: as equally high, rounding decides between them.
TIES = 0.01
#: Drawn figures, and the size of their images.
FIGURES, SIZE = 8, (240, 320)
#: At most so many photographs of a folder are looked at.
PHOTOGRAPHS = 50
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')

#: An image (h, w, 3) and boxes (N, 4), source px.
Sample = Tuple[np.ndarray, np.ndarray]


class Difference(NamedTuple):
    """What was compared, and how far it is apart.

    Attributes:
        px: Input px, shape (N, K).
        score: Shape (N, K), see :data:`SCORE`.
    """

    px: np.ndarray
    score: np.ndarray

    @property
    def beyond(self) -> np.ndarray:
        """Which keypoints differ by more than rounding, shape (N, K)."""
        # What is not finite is.
        return ~((self.px <= PX) & (self.score <= SCORE))

    @property
    def good(self) -> bool:
        """Whether nothing but rounding differs.

        Of each keypoint at least half the crops, so that none is wrong throughout.
        """
        beyond = self.beyond
        return beyond.mean() <= TIES and bool((beyond.mean(0) < 0.5).all())


def drawn() -> Iterator[Sample]:
    """Drawn figures, each with one box more than the one before it."""
    rng = np.random.default_rng(0)
    for count in range(1, FIGURES + 1):
        figure = figures.random_figure(rng, SIZE)
        image = figures.draw_figure(figures.random_background(rng, SIZE), figure)
        x, y, w, h = figures.bounding_box(figure, SIZE)
        boxes = np.tile([x, y, x + w, y + h], (count, 1))
        yield image, boxes + rng.uniform(-10, 10, boxes.shape)


def samples(folder: Optional[Path]) -> Tuple[int, Iterator[Sample]]:
    """How many samples a folder's photographs, or drawn figures are, and each of them.

    Raises:
        UserError: There is no photograph in it, or one cannot be read.
    """
    if folder is None:
        return FIGURES, drawn()
    found = sorted(p for p in folder.glob('*') if p.suffix.lower() in SUFFIXES)
    if not found:
        suffixes = ', '.join(SUFFIXES)
        raise UserError(
            f'--verify {folder} must be a folder with photographs ({suffixes})'
        )
    found = found[:PHOTOGRAPHS]
    return len(found), _photographed(found)


def _photographed(paths: List[Path]) -> Iterator[Sample]:
    """Photographs, each with four boxes: the whole, and three parts of it."""
    rng = np.random.default_rng(0)
    for path in paths:
        try:
            image = read_photograph(path)
            if image is None:
                raise UserError(f'--verify: {path} cannot be read as an image')
            height, width = check_image(image).shape[:2]
        except ValueError as error:
            raise UserError(f'--verify: {path}: {error}') from error
        size = rng.uniform(0.2, 0.6, (3, 2))
        first = rng.uniform(0, 1 - size)
        parts = np.concatenate((first, first + size), 1) * np.tile([width, height], 2)
        yield image, np.concatenate(([[0, 0, width, height]], parts))


def compare(
    path: Path,
    trained: Trained,
    samples: Iterable[Sample],
    progress: Callable[..., None] = lambda **state: None,
) -> Difference:
    """Run a model file and MMPose on the same photographs.

    Args:
        path: The file.
        trained: What it was exported from.
        samples: Photographs and boxes.
        progress: Called with ``advance=1`` after each photograph.

    Raises:
        UserError: The file cannot be run, or no keypoint is found at all.
    """
    try:
        exported, model = PoseModel(path), trained.model
    except ValueError as error:
        # Else it is what the config says, such as a keypoint's name.
        helps = 'onnxruntime cannot load what torch wrote; another --opset helps: '
        raise UserError(
            f'{helps}{error.__cause__}' if error.__cause__ else str(error)
        ) from error
    model.test_cfg = dict(model.test_cfg or {}, flip_test=exported.flip_test)
    distances, scores, peaks = [], [], 0
    for image, boxes in samples:
        regions = exported.regions(boxes)
        try:
            ours = exported(image, boxes)
            found = [ours.keypoints]
            if exported.takes_boxes:
                # What the file says of the source itself.
                said = []
                for i in range(len(boxes)):
                    one = regions.part(slice(i, i + 1))
                    crop = exported.crop(image, one)
                    said += exported.predict(crop, one, ['source_keypoints'])
                found.append(np.concatenate(said))
        except Exception as error:
            # Onnxruntime's errors have no base.
            why = error.__cause__ or error
            problem = f'the exported model fails on {len(boxes)} crops: {why}'
            if exported.takes_any_number:
                problem += (
                    '\nif the network fixes the size of its batch, export without '
                    '--dynamic-batch'
                )
            raise UserError(problem) from error
        peaks += int((ours.scores != 0).sum())
        loaded = image if trained.channels == 3 else mmcv.bgr2gray(image)
        results = inference_topdown(model, loaded, boxes)
        theirs = [result.pred_instances for result in results]
        right = np.concatenate([each.keypoints for each in theirs])
        unbiased = exported.measure == F.UNIT_LENGTH
        crops = *regions, exported.input_size, unbiased
        in_crops = [F.source_to_input(points, *crops) for points in (right, *found)]
        away = np.abs(np.diff(in_crops, axis=0)).max(0)
        distances.append(np.hypot(away[..., 0], away[..., 1]))
        right = np.concatenate([each.keypoint_scores for each in theirs])
        scores.append(np.abs(ours.scores - right) / np.maximum(np.abs(right), 1))
        progress(advance=1)
    if not peaks:
        raise UserError(
            'the network finds no keypoint in any of the crops, so that there is '
            'nothing to compare; give a trained CHECKPOINT, or photographs of what it '
            'was trained on (--verify IMAGE_DIR)'
        )
    return Difference(np.concatenate(distances), np.concatenate(scores))


def compare_decoding(path: Path, codec: MapReading, keypoints: int) -> Difference:
    """Run a codec's decoding of K keypoints, and the file of it, on the same maps.

    Maps as a network makes them, noise, and what is not finite, flat or empty.
    """
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(F.unit_length(codec.input_size))
    points = torch.rand(8, keypoints, 2, generator=generator) * size
    drawing = codec
    if not isinstance(codec, UDPCodec):
        drawing = UDPGaussianHeatmap(codec.input_size, codec.heatmap_size)
    maps, _ = drawing.encode_batch(points)
    maps = maps + 0.1 * (torch.rand(maps.shape, generator=generator) - 0.5)
    odd = torch.rand(6, *maps.shape[1:], generator=generator)
    odd[1], odd[2], odd[3], odd[4] = 0.0, float('nan'), 3.0, -1.0
    odd[5, :, 0, 0] = float('inf')
    maps = torch.cat((maps, odd))
    with torch.no_grad():
        right, right_score = codec.decode_tensors(maps)
        if path.suffix == '.onnx':
            cpu = ['CPUExecutionProvider']
            session = onnxruntime.InferenceSession(str(path), providers=cpu)
            answers = session.run(OUTPUTS, {'maps': maps.numpy()})
        elif path.suffix == '.pt':
            answers = torch.jit.load(str(path))(maps)
        else:
            answers = torch.export.load(str(path)).module()(maps)
        found, score = map(torch.as_tensor, answers)
    px = (found - right).norm(dim=-1).numpy()
    return Difference(px, (score - right_score).abs().numpy())
