"""Registers the components with MMPose, and not before it is there.

``custom_imports`` of a config, and with it every script of the toolbox, imports this
package when mmengine is loaded: then it registers at once. In a program that has not
imported that (one that runs exported models, or the command's ``--help``), importing
MMPose would take seconds and hundreds of megabytes, so registration waits for whoever
imports MMPose.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

from wrapt import register_post_import_hook


def register_with_mmpose() -> None:
    """Register the components, at once or together with MMPose."""
    if 'mmengine' not in sys.modules:
        register_post_import_hook(_register, 'mmpose')
    elif find_spec('mmpose') is not None:
        _register()


def _register(*_) -> None:
    # Modules, not their names: one of them may be what is being imported.
    for package in ('codecs', 'datasets', 'models'):
        import_module(f'udp_plugin.{package}')
