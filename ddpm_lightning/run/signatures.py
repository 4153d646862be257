"""What a class takes, without importing what is slow to import.

Whoever has misspelt a word should not wait for Lightning to be told, so the signatures of classes
that need it are read from their source files.
"""

import ast
import builtins
import importlib
import inspect
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import get_object

_OURS = "ddpm_lightning."
_SLOW = (
    "lightning.",
    "wandb.",
    *(f"{_OURS}training.{name}." for name in ("callbacks", "loggers", "module")),
)
# Where a class hands on the keywords that it does not name itself.
_HANDED_ON = {"lightning.pytorch.loggers.wandb.WandbLogger": "wandb.sdk.wandb_init.init"}

Hint = Callable[[], Any]


class Signature(NamedTuple):
    """module: that defines the class.   hints: the type of each parameter, found when it is asked
    for, Any where it is not known.   is_open: whether other keywords are taken too.
    """

    module: str
    hints: dict[str, Hint]
    is_open: bool

    def over(self, base: "Signature") -> "Signature":
        """With the parameters of what its ** goes to."""
        return Signature(self.module, base.hints | self.hints, base.is_open)


def is_slow(target: str) -> bool:
    """Whether importing it imports Lightning."""
    return target.startswith(_SLOW)


def signature(target: str) -> Signature:
    """Of the class with this path. Raises ImportError; TypeError where it is something else."""
    if is_slow(target):
        return _of_source(*_split(target))
    try:
        factory = get_object(target)
    except Exception as error:  # which importing it may raise
        raise ImportError(str(error)) from error
    if not inspect.isclass(factory):
        raise TypeError(f"{target} is not a class")
    return _of_class(factory)


def _of_class(factory: type) -> Signature:
    kinds = {name: p.kind for name, p in inspect.signature(factory).parameters.items()}
    named = [name for name, kind in kinds.items() if kind is not inspect.Parameter.VAR_KEYWORD]
    hints: dict[str, Hint] = {name: partial(_hint, factory, name) for name in named}
    own = Signature(factory.__module__, hints, is_open=len(named) < len(kinds))
    if own.is_open and own.module.startswith(_OURS) and factory.__base__ is not None:
        return own.over(_of_class(factory.__base__))
    return own


def _hint(factory: type, name: str) -> Any:
    for ancestor in factory.__mro__:
        try:
            constructor = ancestor.__dict__.get("__init__", object.__init__)
            hints = typing.get_type_hints(constructor, include_extras=True)  # bounds of numbers
        except (NameError, TypeError):  # a foreign class whose annotations need its own imports
            continue
        if name in hints:
            return hints[name]
    return Any


def _of_source(module: str, name: str) -> Signature:
    """Of a class in a module that is only read."""
    home, node = _definition(module, name)
    if not isinstance(node, ast.ClassDef):
        raise TypeError(f"{module}.{name} is not a class")
    constructors = [s for s in node.body if getattr(s, "name", "") == "__init__"]
    if not constructors:
        return _of_base(home, node)
    own = _of_function(home, constructors[0])
    if (path := f"{home}.{node.name}") in _HANDED_ON:
        return own.over(_of_function(*_definition(*_split(_HANDED_ON[path]))))
    return own.over(_of_base(home, node)) if own.is_open and path.startswith(_OURS) else own


def _of_base(module: str, node: ast.ClassDef) -> Signature:
    for base in node.bases:
        with suppress(ImportError):  # a class that says nothing of parameters: object, ABC
            if isinstance(base, ast.Name):
                return _of_source(module, base.id)._replace(module=module)
    return Signature(module, {}, is_open=False)


def _of_function(module: str, node: ast.stmt) -> Signature:
    assert isinstance(node, ast.FunctionDef)
    named = [a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != "self"]
    hints: dict[str, Hint] = {a.arg: partial(_value, module, a.annotation) for a in named}
    return Signature(module, hints, is_open=node.args.kwarg is not None)


def _split(path: str) -> tuple[str, str]:
    module, _, name = path.rpartition(".")
    return module, name


def _definition(module: str, name: str) -> tuple[str, ast.stmt]:
    """The statement that gives a name its value, imports followed, and the module it is in."""
    bound = _binding(module, name)
    if isinstance(bound, ast.ImportFrom) and bound.module:
        return _definition(bound.module, _imported(bound, name))
    return module, bound


def _binding(module: str, name: str) -> ast.stmt:
    for statement in _statements(module):
        match statement:
            case ast.ClassDef() | ast.FunctionDef() if statement.name == name:
                return statement
            case ast.ImportFrom(level=0) if _imported(statement, name):
                return statement
            case ast.Assign(targets=[ast.Name(id=assigned)]) if assigned == name:
                return statement
    raise ImportError(f"{module} has no {name}")


def _imported(statement: ast.ImportFrom, name: str) -> str:
    """What the name is called where it comes from; empty if it does not come from there."""
    return next((a.name for a in statement.names if (a.asname or a.name) == name), "")


@cache
def _statements(module: str) -> list[ast.stmt]:
    """Of a module that is not imported, those under top-level conditions too."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"there is no package {top}")
    path = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        raise ImportError(f"there is no module {module}")
    found = ast.parse(file.read_bytes()).body
    return [*found, *(s for outer in found if isinstance(outer, ast.If) for s in outer.body)]


class _Names(dict[str, Any]):
    """The names of a module that is not imported, each found when an annotation mentions it."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        bound = _binding(self.module, name)
        if isinstance(bound, ast.ImportFrom) and bound.module:
            source, original = bound.module, _imported(bound, name)
            if is_slow(f"{source}."):
                return _Names(source)[original]
            return getattr(importlib.import_module(source), original)
        if isinstance(bound, ast.Assign):
            return _value(self.module, bound.value)
        # A class of which nothing plain is an instance.
        return type(name, (), {"__module__": self.module})


def _value(module: str, annotation: ast.expr | None) -> Any:
    """What an annotation stands for; Any if that takes more than reading."""
    if annotation is None:
        return Any
    try:
        found = eval(compile(ast.Expression(annotation), module, "eval"), {}, _Names(module))
    except Exception:  # it may be any expression
        return Any
    return Any if isinstance(found, str) else found  # a name in quotes is one to be imported
