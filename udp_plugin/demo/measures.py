"""Predictions and how far off they are."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from mmengine.fileio import load
from scipy.stats import spearmanr

from udp_plugin import functional as F
from udp_plugin.ui import UserError

#: Figures of the tables: key in the JSON file, column, format, and whether more is
#: better.
COLUMNS = [
    ('median_px', 'median\n(px)', '{:.2f}', False),
    ('mean_px', 'mean\n(px)', '{:.2f}', False),
    ('p95_px', '95 %\n(px)', '{:.2f}', False),
    ('within_half_px', 'within\n0.5 px', '{:.1%}', True),
    ('within_1_px', 'within\n1 px', '{:.1%}', True),
    ('ap', 'COCO\nAP', '{:.1f}', True),
]


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


def as_predictions(samples: Sequence[dict]) -> List[Prediction]:
    """The toolbox's data samples, as dicts, after prediction."""
    predictions = []
    for sample in samples:
        annotated, predicted = sample['gt_instances'], sample['pred_instances']
        # MMPose 1.1 leaves the box itself alone.
        center = sample.get('input_center', annotated.get('bbox_centers'))
        scale = sample.get('input_scale', annotated.get('bbox_scales'))
        predictions.append(
            Prediction(
                img_path=sample['img_path'],
                input_size=tuple(sample['input_size']),
                center=np.asarray(center, dtype=float).reshape(2),
                scale=np.asarray(scale, dtype=float).reshape(2),
                annotated=np.asarray(annotated['keypoints'][0], dtype=float),
                predicted=np.asarray(predicted['keypoints'][0, :, :2], dtype=float),
                scores=np.asarray(predicted['keypoint_scores'][0], dtype=float),
                labelled=np.asarray(annotated['keypoints_visible'][0]) > 0,
            )
        )
    return predictions


def read_predictions(path: Path) -> List[Prediction]:
    """Read what ``tools/test.py --dump`` wrote."""
    return as_predictions(load(str(path)))


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
    """The figures of :data:`COLUMNS`, and how well scores rank errors.

    Args:
        predictions: Of one network.
        ap: COCO's, between 0 and 1.

    Returns:
        dict: also ``score_rank``, Spearman's correlation of the keypoints' scores
        and their negative errors; 0 where all scores are the same.
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
