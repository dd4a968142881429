"""Whether code of the user's own is there, as far as its text says: nothing of it is imported or run."""

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from dstrain.config.own_code import own_name
from dstrain.errors import UserError

Named = ast.stmt | None
"""What gives a name in a module: a class, a function, or another statement, such as an import."""


def check_source(item: str, *, key: str, methods: Sequence[str] = ()) -> None:
    """Look up what `item` names as `my_package.my_module:name`, and the methods of a class without bases.

    Code that is not in a file of Python, or that makes its names as it runs, passes.

    Raises:
        UserError: there is no such module, its text is no Python, or the name or a method is not in it.
    """
    module = item.partition(":")[0]
    spec = _find_spec(module)
    if spec is None:
        raise UserError(
            f"{key} `{item}`: there is no module `{module}`: install it, or start from the folder that holds it; this is "
            f"{Path.cwd()}"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), filename=spec.origin)
    except SyntaxError as error:
        raise UserError(f"{key} `{item}`: {spec.origin}:{error.lineno}: no Python ({error.msg}): correct it") from error
    except ValueError as error:  # of a byte that Python refuses
        raise UserError(f"{key} `{item}`: {spec.origin}: no Python ({error}): correct it") from error
    names = dict(_names(tree.body))
    if "*" in names or "__getattr__" in names:
        return
    if own_name(item) not in names:
        raise UserError(f"{key} `{item}`: {spec.origin} has no function or class `{own_name(item)}`: correct the name")
    found = names[own_name(item)]
    if isinstance(found, ast.ClassDef) and not (found.bases or found.keywords or found.decorator_list):
        held = dict(_names(found.body))
        lacking = [] if "__getattr__" in held else [name for name in methods if name not in held]
        if lacking:
            raise UserError(
                f"{key} `{item}`: it has no method `{lacking[0]}` ({spec.origin}:{found.lineno}): a task has "
                f"{', '.join(methods)}"
            )


def _find_spec(module: str) -> ModuleSpec | None:
    """Where a module is; its packages are not imported, as `importlib.util.find_spec` would."""
    here = os.getcwd()
    folders: Sequence[str] | None = [*sys.path, here]
    spec, name = None, ""
    for part in module.split("."):
        if folders is None:
            return None
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, list(folders))
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return spec


def _names(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Named]]:
    """The names that statements give, those in their branches included."""
    for statement in body:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield statement.name, statement
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    yield alias.asname or alias.name.partition(".")[0], statement
            case _:
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        yield node.id, statement
                for part in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, part, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)
