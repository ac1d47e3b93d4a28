"""Unbiased data processing (UDP) for MMPose 1.x.

Importing the package registers its components with MMPose: at once in a program that
has imported the toolbox's foundations, and else together with MMPose. So
:mod:`udp_plugin.functional` works without the toolbox, and :mod:`udp_plugin.runtime`
does not import it.
"""

from importlib import import_module

from .names import PACKAGES
from .registration import register_with_mmpose
from .version import __version__

__all__ = [*PACKAGES, '__version__']


def __getattr__(name: str):
    if name not in PACKAGES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        return getattr(import_module(PACKAGES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'mmpose':
            raise
        raise AttributeError(f'{name} needs MMPose, which is not installed') from error


def __dir__():
    return sorted(__all__)


register_with_mmpose()
