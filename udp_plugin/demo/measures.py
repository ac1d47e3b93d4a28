"""Predictions, how far off they are, and what a demo found."""

import json
import pickle
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from scipy.stats import spearmanr

from udp_plugin import functional as F
from udp_plugin.errors import UserError

from .configs import KEPT, RUNS, Data

#: Median error in input px, above which a network has not learnt its task.
UNTRAINED = 8


class Prediction(NamedTuple):
    """One person's keypoints, as annotated and as predicted."""

    img_path: str
    #: Width and height of the network's input in pixels.
    input_size: Tuple[int, int]
    #: Box of the network's input: centre and size in source px, shape (2,).
    center: np.ndarray
    scale: np.ndarray
    #: Shape (K, 2), source px.
    annotated: np.ndarray
    predicted: np.ndarray
    #: Shape (K,).
    scores: np.ndarray
    #: Shape (K,): which keypoints are labelled.
    labelled: np.ndarray

    @property
    def pixel(self) -> float:
        """Size of an input pixel in source px."""
        return self.scale[0] / F.unit_length(self.input_size)[0]

    @property
    def errors(self) -> np.ndarray:
        """Distances of the labelled keypoints, input px."""
        distance = np.linalg.norm(self.predicted - self.annotated, axis=-1)
        return distance[self.labelled] / self.pixel


class Run(NamedTuple):
    """The results of one config."""

    predictions: List[Prediction]
    #: Errors of all labelled keypoints, input px.
    errors: np.ndarray
    #: As :func:`measure` returns them.
    metrics: Dict[str, float]


class Demo(NamedTuple):
    """What a demo found."""

    #: Where everything went.
    folder: Path
    data: Data
    #: Training iterations of each config, and the seed of all.
    iters: int
    seed: int
    #: By the names of the configs: ``stock``, ``kept``, ``udp_gaussian``,
    #: ``udp_offset``.
    runs: Dict[str, Run]
    pictures: List[Path]
    #: What each part took, and ``all`` of them.
    seconds: Dict[str, float]

    @property
    def best(self) -> str:
        """The name of the UDP config, trained as such, with the smallest median."""
        names = [name for name in self.runs if name not in ('stock', KEPT)]
        return min(names, key=lambda name: self.runs[name].metrics['median_px'])

    @property
    def conclusion(self) -> str:
        """One sentence that says what the figures say."""
        stock = self.runs['stock'].metrics['median_px']
        median = self.runs[self.best].metrics['median_px']
        compared = f'a median error of {median:.2f} input px against {stock:.2f}'
        kept = self.runs[KEPT].metrics['median_px']
        if median < 0.95 * stock and median < UNTRAINED:
            return (
                f'The same network, trained alike, is {stock / median:.1f} times as '
                f'accurate with UDP: {compared} ({RUNS[self.best]}). The stock '
                f'weights as they are, tested with names swapped, come to {kept:.2f}.'
            )
        return (
            f'After {self.iters} iterations there is no gain to tell: {compared}. The '
            'bias that UDP removes shows once a network is right to a few px: raise '
            '--iters.'
        )


def as_predictions(samples: Sequence[dict]) -> List[Prediction]:
    """The toolbox's data samples, as dicts, after prediction."""
    predictions = []
    for sample in samples:
        annotated, predicted = sample['gt_instances'], sample['pred_instances']
        # MMPose 1.1 leaves the box itself alone.
        center = sample.get('input_center', annotated.get('bbox_centers'))
        scale = sample.get('input_scale', annotated.get('bbox_scales'))
        prediction = Prediction(
            img_path=sample['img_path'],
            input_size=tuple(sample['input_size']),
            center=np.asarray(center, dtype=float).reshape(2),
            scale=np.asarray(scale, dtype=float).reshape(2),
            annotated=np.asarray(annotated['keypoints'][0], dtype=float),
            predicted=np.asarray(predicted['keypoints'][0, :, :2], dtype=float),
            scores=np.asarray(predicted['keypoint_scores'][0], dtype=float),
            labelled=np.asarray(annotated['keypoints_visible'][0]) > 0,
        )
        predictions.append(prediction)
    return predictions


def read_predictions(path: Path) -> List[Prediction]:
    """Read what ``tools/test.py --dump`` wrote."""
    return as_predictions(pickle.loads(path.read_bytes()))


def errors_of(predictions: Sequence[Prediction]) -> np.ndarray:
    """The errors of all labelled keypoints, input px.

    Raises:
        UserError: A predicted coordinate is not finite.
    """
    errors = np.concatenate([p.errors for p in predictions])
    if not np.isfinite(errors).all():
        raise UserError('there are predicted coordinates that are not finite')
    return errors


def measure(predictions: Sequence[Prediction], ap: float) -> Dict[str, float]:
    """How accurate a network is, and how well its scores rank its errors.

    Args:
        predictions: Of one network.
        ap: COCO's, between 0 and 1.

    Returns:
        dict: errors in input px, shares, ``ap`` in percent, and ``score_rank``,
        Spearman's correlation of the keypoints' scores and their negative errors; 0
        where all scores are the same.
    """
    errors = errors_of(predictions)
    scores = np.concatenate([p.scores[p.labelled] for p in predictions])
    rank = spearmanr(scores, -errors)[0] if np.ptp(scores) and np.ptp(errors) else 0.0
    figures = dict(
        median_px=np.median(errors),
        mean_px=np.mean(errors),
        p95_px=np.percentile(errors, 95),
        within_half_px=np.mean(errors <= 0.5),
        within_1_px=np.mean(errors <= 1),
        ap=100 * ap,
        score_rank=rank,
    )
    return {key: float(value) for key, value in figures.items()}


def measure_run(folder: Path) -> Run:
    """Measure the predictions that a config's test wrote into a folder."""
    predictions = read_predictions(folder / 'predictions.pkl')
    ap = json.loads((folder / 'metrics.json').read_text())['coco/AP']
    return Run(predictions, errors_of(predictions), measure(predictions, ap))
