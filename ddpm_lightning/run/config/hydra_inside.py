"""What Hydra and OmegaConf keep to themselves and a command needs, each private name in one place.

`tests/run/test_hydra_inside.py` sees each of them at work: a release that changes one fails there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError
from omegaconf.grammar_visitor import GrammarVisitor

_COST = 256  # characters, as how many each ${..} counts besides its value


def parse_flags(words: list[str]) -> list[str]:
    """Return the words that are no flags of Hydra's, nor their values.

    Raises:
        ValueError: in place of a page about all flags.
    """

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return list(parser.parse_args(words).overrides)


def apply_override(override: Override, cfg: DictConfig) -> None:
    """Change a value of a composed configuration as a command's word does."""
    ConfigLoaderImpl._apply_overrides_to_config([override], cfg)


@contextmanager
def bounded_interpolations(max_characters: int) -> Iterator[None]:
    """Raise InterpolationResolutionError once the values of all ${..} are longer than those of any
    run, as they grow where one, perhaps a stranger's, names others that name others.
    """
    resolve, left = GrammarVisitor.visitInterpolation, max_characters

    def counted(visitor: GrammarVisitor, context: Any) -> Any:
        nonlocal left
        value = resolve(visitor, context) if left > 0 else None
        left -= _COST + len(repr(value))
        if left <= 0:
            raise InterpolationResolutionError("${..} name each other too often")
        return value

    GrammarVisitor.visitInterpolation = counted  # type: ignore[assignment, method-assign]
    try:
        yield
    except RecursionError as e:
        raise InterpolationResolutionError("${..} name each other in a circle") from e
    finally:
        GrammarVisitor.visitInterpolation = resolve  # type: ignore[method-assign]
