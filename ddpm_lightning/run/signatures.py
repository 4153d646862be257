"""What a class takes: the parameters of its constructor, and their types."""

import inspect
import typing
from functools import cache
from typing import Any, NamedTuple

from hydra.utils import get_object

_OURS = "ddpm_lightning."
_WANDB_INIT = "wandb.sdk.wandb_init.init"
# Where a class hands on the keywords that it does not name itself.
_HANDED_ON = {"lightning.pytorch.loggers.wandb.WandbLogger": _WANDB_INIT}


class Signature(NamedTuple):
    """The parameters of a constructor.

    module: that defines the class.   hints: the type of each parameter, Any where it is not known.
    is_open: whether other keywords are taken too.
    """

    module: str
    hints: dict[str, Any]
    is_open: bool

    def over(self, base: "Signature") -> "Signature":
        """Return the signature with the parameters of what its ** is handed to."""
        return Signature(self.module, base.hints | self.hints, base.is_open)


@cache
def signature(target: str) -> Signature:
    """Return the signature of the class with this path.

    Raises:
        ImportError: if there is none.   TypeError: if it is not a class.
    """
    try:
        factory = get_object(target)
    except Exception as error:  # importing it may raise anything
        raise ImportError(str(error)) from error
    if not inspect.isclass(factory):
        raise TypeError(f"{target} is not a class")
    return _of_class(factory)


def _of_class(factory: type) -> Signature:
    own = _of_function(factory, factory.__module__, _hints(factory))
    if not own.is_open:
        return own
    path = f"{factory.__module__}.{factory.__qualname__}"
    if path in _HANDED_ON:
        receiver = get_object(_HANDED_ON[path])
        return own.over(_of_function(receiver, receiver.__module__, {}))
    if own.module.startswith(_OURS) and factory.__base__ is not None:
        return own.over(_of_class(factory.__base__))
    return own


def _of_function(function: Any, module: str, hints: dict[str, Any]) -> Signature:
    kinds = {name: p.kind for name, p in inspect.signature(function).parameters.items()}
    named = [name for name, kind in kinds.items() if kind is not inspect.Parameter.VAR_KEYWORD]
    return Signature(module, {n: hints.get(n, Any) for n in named}, len(named) < len(kinds))


def _hints(factory: type) -> dict[str, Any]:
    """Return the types of constructors along the class's ancestors, the class's own first."""
    hints: dict[str, Any] = {}
    for ancestor in factory.__mro__:
        try:
            of_ancestor = typing.get_type_hints(
                ancestor.__dict__.get("__init__", object.__init__), include_extras=True
            )
        except (NameError, TypeError):  # annotations that need imports of their own
            continue
        hints = of_ancestor | hints
    return hints
