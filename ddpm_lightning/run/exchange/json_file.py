"""JSON files that come from others: small, flat enough, and of a schema."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.run.config.errors import UserError

_MAX_BYTES = 2**20
Schema = TypeVar("Schema", bound=BaseModel)


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a file holds; UserError unless it is one, of at most 1 MiB."""
    try:
        content = read_json(path, _MAX_BYTES)
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; a pipeline folder of diffusers has it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a JSON file of diffusers: {error}") from error
    return content


def parsed(schema: type[Schema], content: dict[str, Any], path: Path) -> Schema:
    """Return the content by its schema; UserError with the first key that is not allowed."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {key}={first['input']!s:.80} cannot be reproduced: {first['msg']}"
        ) from error
