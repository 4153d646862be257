"""What a class takes: the parameters of its constructor, and their types."""

import inspect
import typing
from functools import cache
from typing import Any, NamedTuple

from hydra.utils import get_object

_OURS = "ddpm_lightning."
# What takes the keywords that a class of others does not name itself.
_HANDED_ON = {"lightning.pytorch.loggers.wandb.WandbLogger": "wandb.init"}


class Signature(NamedTuple):
    """The parameters of a constructor.

    module: that defines the class.   hints: the type of each parameter, Any where it is not known.
    is_open: whether other keywords are taken too.
    """

    module: str
    hints: dict[str, Any]
    is_open: bool


@cache
def signature(target: str) -> Signature:
    """Return the signature of the class with this path, with what its ** is handed to.

    Raises:
        ImportError: if there is none, or it is not a class.
    """
    try:
        factory = get_object(target)
    except Exception as error:  # importing it may raise anything
        raise ImportError(str(error)) from error
    if not inspect.isclass(factory):
        raise ImportError("it is not a class")
    hints: dict[str, Any] = {}
    is_open = True
    for ancestor in factory.__mro__:
        path = f"{ancestor.__module__}.{ancestor.__qualname__}"
        receivers = [ancestor, *([get_object(_HANDED_ON[path])] if path in _HANDED_ON else [])]
        for receiver in receivers:
            try:
                types = typing.get_type_hints(receiver.__init__, include_extras=True)
            except (NameError, TypeError):  # annotations that need imports of their own
                types = {}
            parameters = inspect.signature(receiver).parameters.values()
            named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
            hints = {name: types.get(name, Any) for name in named} | hints
            is_open = len(named) < len(parameters)
        if not is_open or not path.startswith((_OURS, *_HANDED_ON)):
            break
    return Signature(factory.__module__, hints, is_open)
