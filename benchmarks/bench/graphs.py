"""Decoding within an exported graph, against maps out of it and decoding after."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Callable, Dict, Tuple

import numpy as np
from mmpose.utils.tensor_utils import to_numpy
from torch import Tensor, nn

from udp_plugin import functional as F

from .cases import BUILTIN, Case, Setting, check_decoded
from .measure import Calls

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPERATION = 'decode in a graph'


def what_is_missing(device: str) -> str:
    """Why nothing can be measured, or nothing."""
    missing = [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]
    if missing:
        return f'{" and ".join(missing)} not installed'
    return '' if device == 'cpu' else "onnxruntime's CPU provider is what is measured"


class LastLayer(nn.Module):
    """Stands in for the end of a network: maps times a number.

    Args:
        then: What is made of them in the graph, if anything.
    """

    def __init__(self, then: Callable = lambda maps: maps) -> None:
        super().__init__()
        self.then = then

    def forward(self, maps: Tensor, factor: Tensor):
        return self.then(maps * factor)


def decode_in_a_graph(setting: Setting) -> Case:
    """Maps to keypoints in a graph; the built-in decodes maps that come out of one."""
    maps, stock = setting.maps, setting.stock
    inputs = {'maps': maps.numpy(), 'factor': np.ones((), np.float32)}
    network, least = _session(LastLayer(), inputs, ['out'])

    def builtin() -> list:
        (out,) = network.run(None, inputs)
        return [stock.decode(sample) for sample in to_numpy(out, unzip=True)]

    calls: Calls = {BUILTIN: builtin}
    file_bytes: Dict[str, int] = {}
    for name, codec in setting.ours.items():
        session, size = _session(
            LastLayer(codec.decode_tensors), inputs, ['keypoints', 'scores']
        )
        calls[name] = lambda session=session: session.run(None, inputs)
        file_bytes[name] = size - least

    def check() -> int:
        def as_the_toolbox_has_them(call: Callable) -> Callable:
            def decoded() -> tuple:
                keypoints, scores = call()
                return F.input_to_toolbox(keypoints, setting.size.input_size), scores

            return decoded

        ours = {
            name: as_the_toolbox_has_them(call)
            for name, call in calls.items()
            if name != BUILTIN
        }
        return check_decoded(setting, maps, {BUILTIN: builtin, **ours})

    case = setting.case(
        OPERATION, calls, check, touched=setting.map_bytes // setting.channels
    )
    return case._replace(file_bytes=file_bytes)


def _session(
    module: nn.Module, inputs: Dict[str, np.ndarray], outputs: list
) -> Tuple['InferenceSession', int]:
    """A module's session, and its file's size in bytes."""
    import onnxruntime
    import torch

    from udp_plugin.export import OPSET
    from udp_plugin.export.writing import write_onnx

    examples = {name: torch.from_numpy(array) for name, array in inputs.items()}
    examples['maps'] = examples['maps'][:1].expand(2, -1, -1, -1)
    with TemporaryDirectory() as folder:
        path = Path(folder, 'graph.onnx')
        write_onnx(path, module, examples, outputs, {}, ['maps', *outputs], opset=OPSET)
        session = onnxruntime.InferenceSession(
            str(path), providers=['CPUExecutionProvider']
        )
        return session, path.stat().st_size
