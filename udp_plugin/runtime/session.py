"""Opens a model that ``udp-plugin export`` wrote, and makes sure that it is one."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple, Union

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

#: What the model says of itself, each as JSON.
METADATA = (
    'made_by',
    'version',
    'config',
    'input_size',
    'heatmap_size',
    'codec',
    'keypoint_names',
    'flip_pairs',
    'skeleton',
    'padding',
    'color',
    'normalized',
    'mean',
    'std',
    'flip_test',
    'measure',
)
#: Inputs that a model has together or not at all, and their shapes.
BOX_INPUTS = {'centers': (None, 2), 'scales': (None, 2), 'rotations': (None,)}


def open_model(
    path: Union[str, Path], providers: Optional[Sequence] = None
) -> Tuple['InferenceSession', Dict[str, Any]]:
    """The session of an exported model, and its metadata.

    Args:
        path: The ``.onnx`` file.
        providers: onnxruntime's execution providers; None is the CPU.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: There is no such file.
        ValueError: ``providers`` is no list of those that this onnxruntime has, or
            the file is no ONNX file, or not one that ``udp-plugin export`` wrote.
    """
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
            f'providers must be a list of some of {available}, which this onnxruntime '
            f'has, got {providers!r}'
        )
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'model must be a file that `udp-plugin export` wrote, and {path} is no '
            'file; check the path'
        )
    try:
        session = onnxruntime.InferenceSession(str(path), providers=list(providers))
    # onnxruntime's errors have no base but this one.
    except Exception as error:
        raise ValueError(
            f'model must be an ONNX file, and onnxruntime {onnxruntime.__version__} '
            f'cannot load {path}: {error}'
        ) from error
    metadata = _read_metadata(session, path)
    _check_interface(session, metadata, path)
    return session, metadata


def _read_metadata(session: 'InferenceSession', path) -> Dict[str, Any]:
    # Others, who quantise a model, say, may have left entries that are no JSON.
    found = session.get_modelmeta().custom_metadata_map
    metadata = {}
    with suppress(ValueError):
        metadata = {key: json.loads(found[key]) for key in METADATA if key in found}
    if metadata.get('made_by') != 'udp_plugin':
        raise ValueError(
            f'model must be a file that `udp-plugin export` wrote, and {path} does not '
            'say that it is (metadata made_by); export the model with it'
        )
    missing = [key for key in METADATA if key not in metadata]
    if missing:
        raise ValueError(
            f'model {path} lacks the metadata {", ".join(missing)}; export it again '
            'with this version of udp-plugin'
        )
    if metadata['measure'] != 'unit length':
        raise ValueError(
            f"model {path} must measure by 'unit length', got {metadata['measure']!r}; "
            'export it again with this version of udp-plugin'
        )
    return metadata


def _check_interface(session: 'InferenceSession', metadata: dict, path) -> None:
    """A ``ValueError`` unless inputs and outputs are those that metadata promise."""
    width, height = metadata['input_size']
    num_keypoints = len(metadata['keypoint_names'])
    kind = 'float' if metadata['normalized'] else 'uint8'
    inputs = {'crops': (f'tensor({kind})', (None, 3, height, width))}
    outputs = {
        'keypoints': ('tensor(float)', (None, num_keypoints, 2)),
        'scores': ('tensor(float)', (None, num_keypoints)),
    }
    found_inputs = {one.name: (one.type, one.shape) for one in session.get_inputs()}
    found_outputs = {one.name: (one.type, one.shape) for one in session.get_outputs()}
    if set(found_inputs) != {'crops'}:
        inputs.update((n, ('tensor(float)', s)) for n, s in BOX_INPUTS.items())
        outputs['source_keypoints'] = ('tensor(float)', (None, num_keypoints, 2))
    for what, expected, found in (
        ('inputs', inputs, found_inputs),
        ('outputs', outputs, found_outputs),
    ):
        if set(expected) != set(found) or not all(
            _fits(found[name], expected[name]) for name in expected
        ):
            raise ValueError(
                f'model {path} must have the {what} {_listed(expected)}, as its '
                f'metadata say, got {_listed(found)}; export it again with this '
                'version of udp-plugin'
            )
    batch = found_inputs['crops'][1][0]
    if isinstance(batch, int) and batch != 1:
        raise ValueError(
            f'model {path} must take one crop at a time or any number, got {batch}'
        )


def _fits(found: Tuple[str, list], expected: Tuple[str, tuple]) -> bool:
    """Whether type and shape are as expected; lengths that are not fixed always are."""
    (kind, shape), (expected_kind, expected_shape) = found, expected
    return (
        kind == expected_kind
        and len(shape) == len(expected_shape)
        and all(
            length == wanted
            for length, wanted in zip(shape, expected_shape)
            if isinstance(length, int) and wanted is not None
        )
    )


def _listed(interface: Dict[str, tuple]) -> str:
    return ', '.join(
        f'{name} {kind[len("tensor(") : -1]} '
        f'({", ".join("B" if n is None else str(n) for n in shape)})'
        for name, (kind, shape) in interface.items()
    )
