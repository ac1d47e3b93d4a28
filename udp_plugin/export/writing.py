"""How graphs are recorded and written, and what a file says of itself."""

import inspect
import json
import re
import warnings
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterator, Sequence

import onnx
import torch
from torch import Tensor, nn

from udp_plugin.ui import UserError
from udp_plugin.version import __version__

from . import OPSET

#: Protobuf's limit for a file; what is larger has its weights in a file beside it.
LARGEST = 2**31 - 2**20


def as_metadata(**values: Any) -> Dict[str, str]:
    """Values in JSON, with those that mark a file as this package's."""
    values.update(made_by='udp_plugin', version=__version__)
    return {name: json.dumps(value) for name, value in values.items()}


def write_onnx(
    path: Path,
    module: nn.Module,
    inputs: Dict[str, Tensor],
    outputs: Sequence[str],
    metadata: Dict[str, str],
    dynamic: Sequence[str],
    opset: int,
) -> None:
    """Record a module as an ONNX file.

    Args:
        path: The file.
        module: What is recorded, in evaluation.
        inputs: Examples by name.
        outputs: Names.
        metadata: Written into the file.
        dynamic: Names of those whose first axis is free.
        opset: Version of ONNX's operators.

    Raises:
        UserError: An operator is not in this opset, or cannot be exported.
    """
    # Later releases of torch would take their other exporter.
    other = 'dynamo' in inspect.signature(torch.onnx.export).parameters
    # A folder of its own: of what is too large for a file, torch leaves one a tensor.
    with recorded(), TemporaryDirectory(prefix='.export', dir=path.parent) as folder:
        recording = str(Path(folder, path.name))
        try:
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                recording,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: {0: 'batch'} for name in dynamic},
                **(dict(dynamo=False) if other else {}),
            )
        except Exception as error:
            raise UserError(_why(error, opset)) from error
        model = onnx.load(recording)
    onnx.helper.set_model_props(model, metadata)
    model.producer_name, model.producer_version = 'udp_plugin', __version__
    large = dict(save_as_external_data=True, location=f'{path.name}.data')
    onnx.save(model, str(path), **(large if model.ByteSize() > LARGEST else {}))
    onnx.checker.check_model(str(path))


def _why(error: Exception, opset: int) -> str:
    """What to do about an error of torch's exporter."""
    text = ' '.join(str(error).split(' Please feel free')[0].split())
    operator = re.search(r"operator '?([\w:]+)|ONNX export of (\w+)", text)
    versions = f'torch {torch.__version__}'
    if operator:
        name = f'the operator {operator[1] or operator[2]}'
        newer = f'has a form of {name} that {versions} does not write'
        problem = newer if opset > OPSET else f'lacks {name}'
        other = ', or a network without it' if opset == OPSET else ''
        return f'--opset {opset} {problem} ({text[:200]}); take --opset {OPSET}{other}'
    if re.search('opset.version', text):
        return f'--opset {opset} is none that {versions} writes; take --opset {OPSET}'
    return f'{versions} cannot record the model: {type(error).__name__}: {text[:500]}'


@contextmanager
def recorded() -> Iterator[None]:
    """Without gradients, nor warnings of sizes that are taken as fixed, as they are."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
