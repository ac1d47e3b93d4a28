"""Opens a model that ``udp-plugin export`` wrote, and makes sure that it is one."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

from .contents import Contents
from .metadata import AGAIN, COLORS, ENTRIES, check_indices, plain, read_metadata

#: What the model says of itself, each as JSON.
METADATA = tuple(ENTRIES)
#: Inputs that a model has together or not at all, and their types and shapes.
BOX_INPUTS = dict(
    centers=('float', (None, 2)),
    scales=('float', (None, 2)),
    rotations=('float', (None,)),
)
#: The file of weights has the name of the model's and this, and ends with the
#: characters that the model's metadata has as ``weights``: random ones, which are
#: those of no other export.
DATA, IDENTITY = '.data', 32


class ExportedModel:
    """A file that ``udp-plugin export`` wrote, opened, and what it says of itself.

    Args:
        path: The ``.onnx`` file.
        providers: onnxruntime's execution providers, such as
            ``['CUDAExecutionProvider']``; None is the CPU.

    Attributes:
        path: The file.
        session: Of onnxruntime.
        input_size, heatmap_size: ``(width, height)`` of the network's input and output
            in pixels.
        codec: The ``type`` and the settings of its codec.
        keypoint_names: K names.
        flip_pairs: Pairs of indices of keypoints that are each other's mirror image.
        skeleton: Pairs of indices of keypoints between which lines are drawn.
        padding: The factor by which boxes are enlarged.
        color: ``'BGR'`` or ``'RGB'``: the order in which crops have their channels; or
            ``'GRAY'``, of which they have one.
        channels: How many that are.
        normalized: Whether crops are float32, less ``mean`` and over ``std``; else
            they are uint8, and the model does that.
        mean, std: A number for each channel, in the order of ``color``.
        flip_test: Whether the model averages over the mirrored crop, too.
        measure: By what the network was trained to measure its input: ``'unit length'``
            (UDP), or ``'pixels'`` if it keeps the weights of a stock config.
        warp: The transform as by which crops are made, of those that have this measure:
            ``'TopDownAffineUDP'`` or the toolbox's own ``'TopdownAffine'``.
        config, version: The config that it was exported from, and by which version of
            this package.
        takes_any_number: Of crops at a time; else one.
        takes_boxes: Whether it maps to the source itself, too.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: There is no such file.
        ValueError: ``providers`` is no list of those that this onnxruntime has, or
            the file is no ONNX file, or not one that ``udp-plugin export`` wrote.
    """

    def __init__(
        self, path: Union[str, Path], providers: Optional[Sequence] = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ImportError(
                'onnxruntime, which runs exported models, is not installed: '
                'pip install onnxruntime'
            ) from None
        providers = ['CPUExecutionProvider'] if providers is None else providers
        available = onnxruntime.get_available_providers()
        # With options, a provider is a pair.
        asked = [each if isinstance(each, str) else each[0] for each in providers]
        if isinstance(providers, str) or not set(asked) <= set(available):
            raise ValueError(
                f'providers must be a list of some of {available}, which this '
                f'onnxruntime has, got {providers!r}'
            )
        ours = 'model must be a file that `udp-plugin export` wrote, and'
        if not Path(path).is_file():
            raise FileNotFoundError(f'{ours} {path} is no file; check the path')
        self.path = Path(path)
        told = self._checked_file(path)
        options = onnxruntime.SessionOptions()
        # Errors are raised; what they say is not for the terminal as it is.
        options.log_severity_level = 4
        options.add_session_config_entry('session.load_model_format', 'ONNX')
        try:
            self.session = onnxruntime.InferenceSession(
                _openable(self.path.resolve()), options, providers=list(providers)
            )
        # onnxruntime's errors have no base but this one.
        except Exception as error:
            raise ValueError(
                f'model must be an ONNX file, and onnxruntime '
                f'{onnxruntime.__version__} cannot load {path}: {plain(error)}'
            ) from error
        for key, value in told.items():
            setattr(self, key, value)
        width, height = self.input_size
        kind, count = 'float' if self.normalized else 'uint8', len(self.keypoint_names)
        self.channels = COLORS[self.color]
        given, answers = self.session.get_inputs(), self.session.get_outputs()
        inputs = dict(crops=(kind, (None, self.channels, height, width)))
        keypoints = 'float', (None, count, 2)
        outputs = dict(keypoints=keypoints, scores=('float', (None, count)))
        self.takes_boxes = len(given) > 1
        if self.takes_boxes:
            inputs.update(BOX_INPUTS)
            outputs.update(source_keypoints=keypoints)
        for what, expected, arguments in (
            ('inputs', inputs, given),
            ('outputs', outputs, answers),
        ):
            found = {one.name: (one.type[7:-1], one.shape) for one in arguments}
            if set(expected) != set(found) or not all(
                _fits(*found[name], *expected[name]) for name in expected
            ):
                raise ValueError(
                    f'model {path} must have the {what} {_listed(expected)}, as its '
                    f'metadata say, got {_listed(found)}; {AGAIN}'
                )
        (batch,) = (one.shape[0] for one in given if one.name == 'crops')
        if isinstance(batch, int) and batch != 1:
            raise ValueError(
                f'model {path} must take one crop at a time or any number, got {batch}'
            )
        check_indices(path, told)
        self.takes_any_number = batch != 1

    def _checked_file(self, path: Union[str, Path]) -> Dict[str, Any]:
        """What a file says of itself, before onnxruntime has opened anything.

        Raises:
            ValueError: It is none that may be opened.
        """
        try:
            contents = Contents(self.path)
        except ValueError as error:
            raise ValueError(
                f'model must be an ONNX file, and {path} is none: {error}'
            ) from error
        told = read_metadata(path, contents.metadata)
        beside = self.path.resolve()
        beside = beside.with_name(beside.name + DATA)
        others = contents.locations - {beside.name}
        if others:
            raise ValueError(
                f'model {path} has weights in {plain(min(others))!r}, but only '
                f'{beside.name} beside it is read; give both files the names that they '
                'were exported with, or export the model again'
            )
        if contents.locations:
            identity = None
            with suppress(ValueError, RecursionError):
                identity = json.loads(contents.metadata.get('weights', 'null'))
            _check_weights(path, beside, identity)
        return told


def _check_weights(path: object, beside: Path, identity: object) -> None:
    """Refuse a file of weights that is not the model's own."""
    if beside.is_symlink() or not beside.is_file():
        what = 'a link, which is not followed' if beside.is_symlink() else 'missing'
        raise ValueError(
            f'{beside}, in which model {path} has its weights, is {what}; put the file '
            'itself there'
        )
    with beside.open('rb') as file:
        file.seek(max(0, beside.stat().st_size - IDENTITY))
        ending = file.read()
    if ending != str(identity).encode() or len(ending) != IDENTITY:
        raise ValueError(
            f'{beside} has the weights of another export than model {path}, as when an '
            'export was interrupted or one of the two files copied; copy both, or '
            'export the model again'
        )


def _openable(path: Path) -> Union[str, bytes]:
    """What onnxruntime takes: a path, or the content where the path is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def _fits(kind: str, shape: Sequence, expected_kind: str, expected: Sequence) -> bool:
    """Whether type and shape are as expected; lengths that are not fixed always are."""
    lengths = [n if isinstance(n, int) else None for n in shape]
    fit = all(None in pair or pair[0] == pair[1] for pair in zip(lengths, expected))
    return fit and kind == expected_kind and len(shape) == len(expected)


def _listed(interface: Dict[str, tuple]) -> str:
    return ', '.join(
        f'{name} {kind} ({", ".join("B" if n is None else str(n) for n in shape)})'
        for name, (kind, shape) in interface.items()
    )
