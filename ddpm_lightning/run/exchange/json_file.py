"""JSON files that come from others: small, flat enough, and of a schema."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.run.config.errors import UserError

_MAX_BYTES = 2**20
Schema = TypeVar("Schema", bound=BaseModel)


def read_object(path: Path, most: int = _MAX_BYTES) -> dict[str, Any]:
    """Return the object that a file holds; UserError unless it is one, of at most so many bytes."""
    try:
        content = read_json(path, most)
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    return content


def parsed(schema: type[Schema], content: dict[str, Any], path: Path) -> Schema:
    """Return the content by its schema; UserError with the first key that is not allowed."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} cannot be used: {key}={first['input']!s:.80}: {first['msg']}"
        ) from error
