"""Reads the weights of a checkpoint, and nothing that would run code.

A checkpoint is a pickle, which can call any function of Python as it is read. torch's
own ``weights_only`` refuses what mmengine's trainings leave beside the weights, such as
the history of losses, or before torch 2.4 can't be told of it. Here, what is no weight
is left out instead, with every torch.
"""

import os
import pickle
import re
import tarfile
import warnings
from pathlib import Path
from typing import Any, Dict

import torch
from torch import Tensor

#: What makes weights, and may be called. Storages torch makes itself.
KNOWN = {
    'collections': ('OrderedDict',),
    'torch._utils': (
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_parameter',
        '_rebuild_parameter_with_state',
    ),
}
#: Has torch refuse all that is not read in its own way, which knows no losses.
FORCED = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
INSTEAD = "save its weights alone: torch.save(model.state_dict(), 'weights.pth')"


class LeftOut:
    """What stands for anything else of a pickle, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> 'LeftOut':
        return self

    __setstate__ = __setitem__ = append = extend = add = __call__


class WeightsUnpickler(pickle.Unpickler):
    """Finds nothing but :data:`KNOWN`."""

    def find_class(self, module: str, name: str) -> Any:
        if name in KNOWN.get(module, ()):
            return super().find_class(module, name)
        return LeftOut


class WeightsPickle:
    """Stands for the module ``pickle``, of which ``torch.load`` takes others, too."""

    Unpickler = WeightsUnpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return WeightsUnpickler(file, **options).load()


def read_weights(path: Path) -> Dict[str, Tensor]:
    """The weights of a checkpoint by name, on the CPU.

    Args:
        path: As ``tools/train.py`` leaves it, or a model's ``state_dict``.

    Raises:
        TypeError: It has none.
        Exception: Whatever torch raises of a broken file.
    """
    if tarfile.is_tarfile(path):
        raise TypeError(f'it is of a torch before 0.1.10; {INSTEAD}')
    with warnings.catch_warnings():
        # Torch would run it.
        warnings.filterwarnings('error', '.*looks like a TorchScript archive')
        try:
            read = torch.load(path, map_location='cpu', pickle_module=WeightsPickle)
        except UserWarning:
            raise TypeError(f'it is a program of TorchScript; {INSTEAD}') from None
        except RuntimeError as error:
            if FORCED in os.environ and 'pickle_module' in str(error):
                raise RuntimeError(f'torch refuses it: unset {FORCED}') from error
            raise
    state = read.get('state_dict', read) if isinstance(read, dict) else read
    if isinstance(state, LeftOut):
        raise TypeError(f'it holds a whole object, whose code is not run; {INSTEAD}')
    if not isinstance(state, dict):
        raise TypeError(f'it holds a {type(state).__name__}, not weights by name')
    return {
        re.sub(r'^module\.', '', str(name)): each
        for name, each in state.items()
        if isinstance(each, Tensor)
    }
