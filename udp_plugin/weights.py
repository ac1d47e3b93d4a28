"""Reads the weights of a checkpoint, and nothing that would run code; loads them.

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
from torch import Tensor, nn

from udp_plugin.errors import UserError

#: So many names a message lists.
LISTED = 4

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


def check_is_file(checkpoint: Path) -> None:
    """Refuse a checkpoint that is none, before anything is done for it.

    Raises:
        UserError: It is no file.
    """
    if not checkpoint.is_file():
        raise UserError(
            f'CHECKPOINT {checkpoint} is no file; tools/train.py leaves checkpoints '
            'such as epoch_210.pth in its --work-dir'
        )


def load_weights(model: nn.Module, checkpoint: Path, config: Path) -> None:
    """Give a model the weights of a checkpoint, all of them.

    Args:
        model: It is changed.
        checkpoint: As :func:`read_weights` takes it.
        config: The model's, for messages.

    Raises:
        UserError: The checkpoint cannot be read, or is of another model, or broken.
    """
    try:
        state = read_weights(checkpoint)
    except Exception as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise UserError(
            f'CHECKPOINT {checkpoint} cannot be read as one of PyTorch: '
            f'{type(error).__name__}: {reason}'
        ) from error
    mismatched, missing, unexpected = [], [], []
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        mismatched = [line.strip() for line in str(error).splitlines()[1:]]
    # Of other things that are in checkpoints, none is of a part of the model.
    parts = {name for name, _ in model.named_children()}
    unexpected = [name for name in unexpected if name.split('.')[0] in parts]
    weights = model.state_dict()
    broken = [name for name, each in weights.items() if not each.isfinite().all()]
    another = f'is of another model than {config}'
    theirs = '; give the config that it was trained with'
    before = '; take one from before the training broke down'
    for names, problem, rest in (
        (mismatched, f'{another}:', theirs),
        (missing, 'has no weights for', f' of {config}{theirs}'),
        (unexpected, f'{another}, which has no', theirs),
        (broken, 'has weights that are NaN or infinite:', before),
    ):
        if names:
            more = len(names) - LISTED
            listed = ', '.join(names[:LISTED]) + (
                f' and {more} more' if more > 0 else ''
            )
            raise UserError(f'CHECKPOINT {checkpoint} {problem} {listed}{rest}')
