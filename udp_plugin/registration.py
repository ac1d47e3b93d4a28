"""Registers the components with MMPose, and not before it is there.

``custom_imports`` of a config, and with it every script of the toolbox, imports this
package when mmengine is loaded: then it registers at once. In a program that has not
imported that (one that runs exported models, or the command's ``--help``), importing
MMPose would take seconds and hundreds of megabytes, so registration waits for whoever
imports MMPose.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Optional

TOOLBOX = 'mmpose'


def register_with_mmpose() -> None:
    """Register the components, at once or together with MMPose."""
    if 'mmengine' not in sys.modules:
        # By name, since a module that is reloaded has other classes.
        if not any(type(f).__name__ == _WaitForMMPose.__name__ for f in sys.meta_path):
            sys.meta_path.insert(0, _WaitForMMPose())
    elif find_spec(TOOLBOX) is not None:
        _register()


def _register() -> None:
    # Modules, not their names: one of them may be what is being imported.
    for package in ('codecs', 'datasets', 'models'):
        import_module(f'udp_plugin.{package}')


class _WaitForMMPose(MetaPathFinder):
    """Has the others find MMPose, and its loader register the components."""

    def find_spec(self, name: str, path=None, target=None) -> Optional[ModuleSpec]:
        if name != TOOLBOX:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = None if finder is self or not find else find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ThenRegister(spec.loader, self)
                return spec
        return None


class _ThenRegister(Loader):
    """A module's own loader, and then the registration."""

    def __init__(self, loader: Loader, waiting: MetaPathFinder) -> None:
        self.loader, self.waiting = loader, waiting

    def __getattr__(self, name: str):
        if name == 'loader' or name.startswith('__'):
            raise AttributeError(name)
        # Whoever only asks where MMPose is finds all that its own loader has.
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # As if nothing had waited.
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register()
        # Where MMPose could not be imported, the next try has to register, too.
        if self.waiting in sys.meta_path:
            sys.meta_path.remove(self.waiting)
