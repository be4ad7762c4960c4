"""find_function: from `package.module:function` to the function; knows not what it is for."""

import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location

from server.config import ConfigError


def find_function(reference: str) -> Callable[..., object]:
    """Import a module of the current directory or of the path, and take a function from it.

    Raises ConfigError, in one sentence, whatever the module's own code does.
    """
    module, colon, _ = reference.partition(":")
    if not colon:
        raise _wrong(reference, "write it as package.module:function")
    try:
        with _current_directory_first():
            name = _importable(module)
            found: object = pkgutil.resolve_name(reference.replace(module, name, 1))
    except (Exception, SystemExit) as error:  # the module's code may raise anything
        raise _wrong(reference, _reason(error)) from error
    if not callable(found):
        raise _wrong(reference, f"it is of type {type(found).__name__}, and no function")
    return found


def _wrong(reference: str, why: str) -> ConfigError:
    return ConfigError(f"--generator {reference} cannot be published: {why}")


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """Look in the current directory before all others, and afterwards only behind them.

    A console script does not look there at all. Later imports, such as torch's, are not to find
    a user's file that happens to have the name of a library.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's module may have changed the path as well
            sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)


def _importable(module: str) -> str:
    """Give the name to import a module by: another one where its own is taken, as `server` is."""
    top, _, rest = module.partition(".")
    taken, spec = sys.modules.get(top), PathFinder.find_spec(top)
    if taken is None or spec is None or spec.origin in (None, getattr(taken, "__file__", None)):
        return module
    if rest and spec.submodule_search_locations is None:
        return module  # a file has no modules in it, so the package that we have is meant
    name = f"published_{top}"
    if name not in sys.modules:
        _load_as(name, spec)
    return f"{name}.{rest}" if rest else name


def _load_as(name: str, found: ModuleSpec) -> None:
    """Import the file that was found under another name than its own."""
    assert found.origin is not None
    spec = spec_from_file_location(
        name, found.origin, submodule_search_locations=found.submodule_search_locations
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
