"""What a trained network does, measured on figures or photographs.

By which measure it was trained: its maps of an input and of the mirror image, mirrored
back, are apart by what Eq. 36 or Eq. 46 say. Its jitter: a crop is moved by parts of a
heatmap pixel, and predictions, mapped back, should stay where they are. With labels,
its errors, and whether the labels themselves lie off.

Letters of shapes: N people, K keypoints, S steps of a crop's movement.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS

from udp_plugin import functional as F
from udp_plugin.codecs.kept import reading_of
from udp_plugin.convert.check import forget_weights
from udp_plugin.convert.swaps import keep
from udp_plugin.demo.figures import KEYPOINTS
from udp_plugin.errors import UserError
from udp_plugin.ui import Table
from udp_plugin.weights import check_is_file, load_weights

from .errors import statistics
from .flows import Warped
from .parts import Parts
from .people import annotated_people, boxed_people, drawn_people, has_labels
from .theory import misalignment
from .warps import CELLS, NEITHER, PIXELS, UNIT_LENGTH

#: People who are looked at: figures that are drawn, or at most of a file.
FIGURES, PEOPLE = 100, 200
#: What figures are called; their labels are not the user's.
DRAWN = 'drawn figures'
#: Said of a network whose predictions are none.
MEANINGLESS = (
    'predictions {} the keypoints, so that they tell nothing: the weights are '
    'untrained, or have not learnt such people (--ann and --img give others)'
)
#: People whose crops are moved, by how many heatmap px at most, and in how many steps.
MOVED, REACH, STEPS = 16, 1.0, 17
#: Inputs that a network gets at once.
BATCH = 16
#: A peak lower than this part of the highest ones is not clear.
LOW = 0.3
#: What is farther than this from the others is a failure, heatmap px.
FAR = 2.0
#: Mirrored predictions agree with direct ones within so many heatmap px.
AGREE = 3.0
#: A mean that is farther from theory than this is not explained by it, heatmap px.
TOLERANCE = 0.1
#: A mean is known by so many of its standard errors.
SURE = 3.0
#: An offset of labels is at least so many source px, and so many standard errors, since
#: what annotators do is systematic, too; it is seen in x, and in y less than this part.
OFFSET, OFFSET_SURE, OFFSET_ACROSS = 0.5, 8.0, 0.5
#: It is measured on at least so many people.
SMALLEST = 16


class Mean(NamedTuple):
    """A mean along an axis, and its standard error."""

    mean: float
    error: float


class Reading(NamedTuple):
    """What comes of a network's maps in one way of testing it.

    Attributes:
        jitter: Standard deviation over the movements on each axis, shape (2,), input
            px; the median over the keypoints.
        off: How far M keypoints are from where they should be, but for a constant,
            while they move by :func:`movement`, shape (S, M, 2), heatmap px.
        source: Predictions minus labels, shape (N, K, 2), source px; NaN where there
            is no label or no clear peak.
        pixel: Input px per source px of each person, shape (N, 2).
    """

    jitter: np.ndarray
    off: np.ndarray
    source: np.ndarray
    pixel: np.ndarray

    def errors(self) -> Dict[str, Dict[str, Optional[float]]]:
        """By axis, input px: the signed mean without failures, median and mean."""
        found = {}
        for axis, each in zip('xy', (self.source * self.pixel[:, None]).T):
            each = each[np.isfinite(each)]
            signed, size = trimmed_mean(each, 3 * _spread(each)), statistics(abs(each))
            found[axis] = dict(signed=signed, median=size['median'], mean=size['mean'])
        return found


class Trained(NamedTuple):
    """What a trained network does; None where it cannot be told, or is not there."""

    checkpoint: str
    data: str  #: Of whom.
    people: int
    keypoints: int  #: With a clear peak in both maps.
    own: str  #: The measure of the config's codec.
    #: How far mirrored predictions, mirrored back, are to the right, heatmap px, and
    #: input px.
    flip: Optional[Mean] = None
    flip_px: Optional[float] = None
    measure: Optional[str] = None
    configured: Optional[Reading] = None  #: As the config tests it.
    kept: Optional[Reading] = None  #: With names swapped for ``--keep-weights``.
    #: By how much labels lie too far to the right and down, source px.
    label_offset: Optional[Mean] = None
    labels_are_off: bool = False  #: Whether that surely is an error of the labels.
    failure: str = ''  #: Why its predictions tell nothing, or not all.

    @property
    def wrong_measure(self) -> bool:
        """Whether the weights surely have another measure than the codec."""
        known = self.measure not in (None, NEITHER) and self.own != NEITHER
        return known and self.measure != self.own

    @property
    def readings(self) -> Dict[str, Reading]:
        """What there is, by name."""
        both = dict(configured=self.configured, kept=self.kept)
        return {name: one for name, one in both.items() if one is not None}

    def stairs(self) -> Dict[str, np.ndarray]:
        """Where a typical keypoint is predicted while it moves by :func:`movement`.

        Returns:
            For each reading shape (2, S), x and y, heatmap px.
        """
        apart = np.zeros(self.configured.off.shape[1:])
        for one in self.readings.values():
            jitter = one.off.std(0)
            apart += np.abs(jitter / np.median(jitter, 0) - 1)
        # On each axis one that trembles as most do, in each reading.
        typical = apart.argmin(0)
        return {
            name: (movement()[:, None] + one.off[:, typical, [0, 1]]).T
            for name, one in self.readings.items()
        }

    def as_dict(self) -> Dict[str, Any]:
        """For ``audit.json``; docs/audit.md says what the keys mean."""
        flip, offset, readings = self.flip, self.label_offset, self.readings.items()
        return dict(
            checkpoint=self.checkpoint,
            data=self.data,
            people=self.people,
            keypoints=self.keypoints,
            failure=self.failure,
            measure=self.measure,
            measure_of_codec=self.own,
            flip_px=self.flip_px,
            flip_heatmap_px=flip and flip._asdict(),
            jitter_px={k: dict(zip('xy', one.jitter.tolist())) for k, one in readings},
            errors_px={k: one.errors() for k, one in readings},
            label_offset_px=offset and offset.mean,
            label_offset_error_px=offset and offset.error,
        )

    def table(self) -> Table:
        """What was measured, for reading."""
        columns = [(name, axis) for name in self.readings for axis in 'xy']
        jitter = [
            f'{each:.2f}' for one in self.readings.values() for each in one.jitter
        ]
        rows = [['jitter of a moving crop', *jitter]]
        errors = [self.readings[name].errors()[axis] for name, axis in columns]
        for key, sign in (('signed', '+'), ('median', ''), ('mean', '')):
            if all(one[key] is not None for one in errors):
                rows.append(
                    [f'error: {key}', *(f'{one[key]:{sign}.2f}' for one in errors)]
                )
        header = ['', *(f'{name} {axis}' for name, axis in columns)]
        title = f'The trained network ({self.checkpoint}, {self.data}), input px'
        return Table(title, header, rows)

    def text(self) -> str:
        """What it says, in a few sentences."""
        texts = []
        if self.measure is not None:
            (mean, error), told = self.flip, f'maps measured by their {self.measure}'
            if self.measure == NEITHER:
                told = 'which no measure explains'
            texts.append(
                f'Mirrored predictions, mirrored back, lie {mean:+.3f} ± {error:.3f} '
                f'heatmap px ({self.flip_px:+.2f} input px) from direct ones: {told}.'
            )
        if self.label_offset is not None:
            mean, error = self.label_offset
            where = f'{mean:+.2f} ± {error:.2f} source px to the right'
            texts.append(f'By its predictions, labels lie {where}.')
        if self.failure:
            texts.append(f'{self.failure[0].upper()}{self.failure[1:]}.')
        return ' '.join(texts)


class Network:
    """A config's model with the weights of a checkpoint, as it is tested.

    Args:
        parts: Of the config.
        model: The estimator.
    """

    def __init__(self, parts: Parts, model: TopdownPoseEstimator) -> None:
        self.parts, self.model = parts, model.eval()
        self.head = getattr(model.head, 'pose_head', model.head)
        self.reading = reading_of(self.head.decoder)

    @torch.no_grad()
    def places(
        self, ends: Sequence[dict], mirrored: bool
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Where maps have their peaks, and how high these are, without a flip test.

        Args:
            ends: N samples, as the test pipeline hands them on.
            mirrored: Of the mirrored inputs; what comes is mirrored back.

        Returns:
            tuple: places (N, K, 2) in heatmap px, and peaks (N, K).
        """
        found = []
        for start in range(0, len(ends), BATCH):
            inputs = self._data(ends[start : start + BATCH])['inputs']
            inputs = inputs.flip(-1) if mirrored else inputs
            maps = self.head.forward(self.model.extract_feat(inputs))
            maps = maps if isinstance(maps, torch.Tensor) else maps[-1]
            self.reading.check_maps(maps)
            peaks = maps[:, :: self.reading.channels_per_keypoint].amax((-2, -1))
            places = self.reading.read(maps)[0]
            found.append((places.double().numpy(), peaks.double().numpy()))
        places, peaks = map(np.concatenate, zip(*found))
        # The data know how their own keypoints mirror, of more maps nobody does.
        outputs = self.parts.outputs
        places, peaks = places[:, outputs], peaks[:, outputs]
        if mirrored:
            flip = list(self.parts.metainfo['flip_indices'])
            places = F.mirror(places, self.parts.heatmap_size[0])[:, flip]
            peaks = peaks[:, flip]
        return places, peaks

    @torch.no_grad()
    def predict(self, ends: Sequence[dict]) -> np.ndarray:
        """Predictions (N, K, 2) in source px, as ``tools/test.py`` has them."""
        found: List[np.ndarray] = []
        for start in range(0, len(ends), BATCH):
            data = self._data(ends[start : start + BATCH])
            samples = self.model.predict(data['inputs'], data['data_samples'])
            found += [s.pred_instances.keypoints[0, :, :2] for s in samples]
        return np.stack(found).astype(float)

    def _data(self, ends: Sequence[dict]) -> Dict[str, Any]:
        data = dict(
            inputs=[end['inputs'] for end in ends],
            data_samples=[end['data_samples'].clone() for end in ends],
        )
        return self.model.data_preprocessor(data, False)


# --- before anything is measured ------------------------------------------------------


def networks(
    cfg: Config, parts: Parts, checkpoint: Path
) -> Tuple[Network, Optional[Network]]:
    """A config's network, and the same with names swapped for ``--keep-weights``.

    Args:
        cfg: The config; it is left as it is.
        parts: Made of it.
        checkpoint: With the weights.

    Returns:
        tuple: both; the second one is None where there is nothing to swap.

    Raises:
        UserError: The checkpoint is not there, broken, or of another model; or it is
            not known how to read the config's maps.
        Exception: Whatever building the model raises.
    """
    check_is_file(checkpoint)
    whole = cfg.to_dict()
    model = _build(whole)
    load_weights(model, checkpoint, Path(cfg.filename or 'config'))
    try:
        network = Network(parts, model)
    except ValueError as error:
        raise UserError(
            f'--checkpoint is for a head whose maps can be read: its decoder is '
            f'{type(parts.head.decoder).__name__}, and {error}'
        ) from error
    try:
        swapped, swaps = keep(whole)
    except UserError:
        # It is UDP throughout, or has a head for which there is none of ours.
        return network, None
    if not swaps:
        return network, None
    kept = _build(swapped)
    kept.load_state_dict(model.state_dict())
    return network, Network(parts, kept)


def _build(cfg: Dict[str, Any]) -> TopdownPoseEstimator:
    settings = copy.deepcopy(cfg['model'])
    forget_weights(settings)
    return revert_sync_batchnorm(MODELS.build(settings))


def people_of(
    parts: Parts, ann: Optional[Path], img: Optional[Path]
) -> Tuple[List[dict], str, bool]:
    """The people to look at, what they are called, and whether they have labels.

    Raises:
        UserError: Figures cannot be drawn with the config's keypoints, and there are no
            photographs; or these are not as they should be.
    """
    if ann is None or img is None:
        names = list(parts.test.metainfo['keypoint_id2name'].values())
        if names != KEYPOINTS:
            raise UserError(
                f'--checkpoint needs photographs here (--ann FILE --img DIR; boxes are '
                'enough), since figures are drawn with the 17 keypoints of COCO, and '
                f'the test data have {len(names)} others'
            )
        return drawn_people(parts, FIGURES), DRAWN, True
    labels = has_labels(ann)
    people = (annotated_people if labels else boxed_people)(parts, ann, img)
    if len(people) > PEOPLE:
        chosen = np.linspace(0, len(people) - 1, PEOPLE).round().astype(int)
        people = [people[index] for index in chosen]
    return people, ann.name, labels


# --- measurements ---------------------------------------------------------------------


def measure_trained(
    network: Network,
    kept: Optional[Network],
    checkpoint: Path,
    people: Sequence[dict],
    data: str,
    labels: bool,
    own: str,
    progress: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Measure what a network does.

    Args:
        network, kept: Of :func:`networks`.
        checkpoint: Whose weights they have.
        people, data, labels: Of :func:`people_of`.
        own: The measure of the config's codec.
        progress: Is told what is done.
    """
    parts = network.parts
    warped = [parts.test.warp(dict(person)) for person in people]
    progress('trained network: mirroring')
    ends = [one.end for one in warped]
    (direct, peaks), (back, others) = (network.places(ends, m) for m in (False, True))
    known = np.minimum(peaks, others)
    known = known >= LOW * np.quantile(known, 0.95)
    if labels:
        known &= np.stack([one.visible for one in warped])
    count, apart = int(known.sum()), back - direct
    found = Trained(checkpoint.name, data, len(people), count, own)
    agree = ((np.abs(apart) <= AGREE).all(-1) & known).sum() / max(count, 1)
    if agree < 0.5:
        what = f'of an image and of its mirror image agree for {agree:.0%} of'
        return found._replace(failure=MEANINGLESS.format(what))
    progress('trained network: jitter')
    see = partial(read, people=people, warped=warped, known=known, labels=labels)
    configured, follow = see(network)
    if follow < 0.5:
        what = f'follow a crop that is moved for {follow:.0%} of'
        return found._replace(failure=MEANINGLESS.format(what))
    flip = mean_of(np.where(known, apart[..., 0], np.nan), FAR)
    measure = measure_of(parts, flip, own)
    found = found._replace(configured=configured)
    if measure is None:
        few = (
            f'{count} keypoints of {len(people)} people are too few to tell the measure'
        )
        return found._replace(failure=f'{few}; give more')
    flip_px = flip.mean * float(parts.stride(unbiased=measure == UNIT_LENGTH)[0])
    found = found._replace(flip=flip, flip_px=flip_px, measure=measure)
    # Read by another measure than they have, weights tell nothing else.
    if kept is not None and not found.wrong_measure:
        found = found._replace(kept=see(kept)[0])
    if labels and measure == own and data != DRAWN:
        found = found._replace(**label_offset(parts, found.kept or configured))
    return found


def movement() -> np.ndarray:
    """How far people move in their crops, to the right and down, (S,), heatmap px."""
    return np.linspace(-REACH, REACH, STEPS)


def read(
    network: Network,
    people: Sequence[dict],
    warped: Sequence[Warped],
    known: np.ndarray,
    labels: bool,
) -> Tuple[Reading, float]:
    """Predict people, and some of them with crops that are moved.

    Args:
        network: Tested as its config says.
        people: N of them, with their images.
        warped: The same at the end of the test pipeline.
        known: Which of their keypoints (N, K) have a clear peak.
        labels: Whether they have labels.

    Returns:
        tuple: what was read, and the share of keypoints that follow the movement.
    """
    parts = network.parts
    scale = np.stack([one.scale for one in warped])
    pixel = F.unit_length(parts.input_size) / scale
    source = np.full((*known.shape, 2), np.nan)
    if labels:
        source = network.predict([one.end for one in warped])
        source -= np.stack([one.source for one in warped])
        source[~known] = np.nan
    steps, off = movement(), []
    some = np.flatnonzero(known.any(1))
    for index in some[np.linspace(0, len(some) - 1, min(MOVED, len(some))).astype(int)]:
        # A person goes to the right in a crop that goes to the left.
        ends, loaded = [], _loaded(people[index], parts)
        for step in -steps[:, None] * scale[index] / parts.heatmap_size:
            box = loaded['bbox'] + np.tile(step, 2).astype(np.float32)
            ends.append(parts.test.warp(dict(loaded, bbox=box)).end)
        predicted = network.predict(ends)[:, known[index]]
        off.append((predicted - predicted.mean(0)) / scale[index] * parts.heatmap_size)
    off = np.concatenate(off, axis=1)
    slope = 1 + np.einsum('s,smd->md', steps, off) / (steps @ steps)
    follow = (np.abs(slope - 1) < 0.5).all(-1)
    jitter = np.median(off.std(0), 0) * parts.stride(unbiased=False)
    return Reading(jitter, off, source, pixel), float(follow.mean())


def measure_of(parts: Parts, flip: Mean, own: str) -> Optional[str]:
    """By which measure weights were trained; None where too little is known.

    The codec's own it is, unless another one is surely nearer.
    """
    kinds = UNIT_LENGTH, PIXELS, CELLS
    theory = {kind: misalignment(parts, kind) for kind in kinds}
    off = {kind: abs(flip.mean - distance) for kind, distance in theory.items()}
    limit = max(TOLERANCE, SURE * flip.error)
    nearest = min(off, key=off.get)
    if not np.isfinite(flip.error) or limit > abs(theory[PIXELS]) / 2:
        return None
    if own in off and off[own] <= limit:
        return own
    return nearest if off[nearest] <= limit else NEITHER


def label_offset(parts: Parts, best: Reading) -> Dict[str, Any]:
    """Whether labels lie off by the same amount everywhere: fields of :class:`Trained`.

    Random flips teach a network both signs of the labels' error in x, so that its
    predictions settle in the middle: they err by all of it in x, and by nothing in y.
    It shows best in people who are small in their images: of what grows with them,
    such as habits of annotators, there is less.
    """
    count = max(len(best.pixel) // 3, SMALLEST)
    small = best.source[np.argsort(-best.pixel[:, 0], kind='stable')[:count]]
    # What left and right do in opposite directions cancels out.
    pairs = (small + small[:, list(parts.metainfo['flip_indices'])]) / 2
    (x, error), (y, _) = (mean_of(pairs[..., axis]) for axis in range(2))
    if not np.isfinite(error):
        return {}
    sure = abs(x) >= max(OFFSET, OFFSET_SURE * error) and abs(y / x) < OFFSET_ACROSS
    return dict(label_offset=Mean(-x, error), labels_are_off=bool(sure))


def mean_of(values: np.ndarray, limit: Optional[float] = None) -> Mean:
    """The mean of values (N, K) without NaN and failures, and its standard error.

    People differ, and so do keypoints: both are as many as there are.

    Args:
        values: Of people and keypoints.
        limit: What is farther from the mean is a failure; by the spread if not given.
    """
    known = values[np.isfinite(values)]
    limit = 3 * _spread(known) if limit is None else limit
    mean = trimmed_mean(known, limit)
    if mean is None:
        return Mean(np.nan, np.inf)
    kept = np.where(np.abs(values - mean) <= limit, values, np.nan)
    squares = 0.0
    for axis in range(2):
        count = np.isfinite(kept).sum(axis)
        means = np.nansum(kept, axis)[count > 0] / count[count > 0]
        squares += means.var(ddof=1) / len(means) if len(means) > 1 else np.inf
    return Mean(mean, float(np.sqrt(squares)))


def trimmed_mean(values: np.ndarray, limit: float) -> Optional[float]:
    """The mean of what is not farther from it than this; None of nothing.

    Rounded values have a median on the grid, and only their mean tells where they are.
    """
    if not len(values):
        return None
    mean = float(np.median(values))
    for _ in range(10):
        mean = float(values[np.abs(values - mean) <= limit].mean())
    return mean


def _spread(values: np.ndarray) -> float:
    """The standard deviation, by quartiles that failures do not move."""
    if not len(values):
        return 0.0
    low, high = np.percentile(values, [25, 75])
    return max(float(high - low) / 1.349, 1e-6)


def _loaded(person: dict, parts: Parts) -> dict:
    """A person with the image, which then is loaded once for all movements."""
    if 'img' in person:
        return person
    steps = [*parts.test.transforms, LoadImageFromFile()]
    load = next(step for step in steps if isinstance(step, LoadImageFromFile))
    image = load.transform(dict(img_path=person['img_path']))['img']
    return dict(person, img=image)
