"""What is asked of samples: sample.py label=3, 'caption=a dog, jumping', captions=FILE."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.conditions.columns import in_columns
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.data.ingest.files import read_file
from ddpm_lightning.run.config.errors import UserError, user_errors

MOST_COLUMNS = 16  # a grid with more is made square
MOST_LISTED = 10


def asked_of(
    conditions: Conditions, asked: Mapping[str, str], num_samples: int
) -> tuple[list[Annotation], int | None]:
    """Return what is asked of each clip, and the columns of their grid, None for a square one.

    Several values of a condition are columns; there are as many full rows as num_samples asks for.

    Args:
        asked: text by the name of a condition, or of a file with a value a line (captions).
    Raises:
        UserError: for a condition that the run was not trained on, a value that there is not, and
            where some wishes are asked for and others are not.
    """
    values: dict[str, list[Any]] = {}
    for key, text in asked.items():
        name = key if key in conditions.members else key.removesuffix("s")
        if name not in conditions.members:
            takes = ", ".join(conditions.members) or "no conditions"
            raise UserError(f"{key}={text}: this run was trained without it; it takes {takes}")
        if name in values:
            raise UserError(f"{key}={text}: {name} is there already; give one of them")
        with user_errors(key):
            values[name] = _values(conditions.members[name], key == name, str(text))
    _check_wishes(conditions, values)
    columns = [dict(zip(values, row, strict=True)) for row in product(*values.values())]
    rows = in_columns(columns, num_samples)
    is_grid = 1 < len(columns) <= MOST_COLUMNS
    return rows if len(columns) > 1 else rows[:num_samples], len(columns) if is_grid else None


def _values(condition: Condition, is_value: bool, text: str) -> list[Any]:
    if not is_value:
        lines = [line.strip() for line in read_file(text).decode().splitlines()]
        if not any(lines):
            raise ValueError(f"{text} is empty; give one value a line")
        return [condition.parse(line) for line in lines if line]
    if condition.choices and text not in condition.choices:
        texts = text.removeprefix("[").removesuffix("]").split(",")
        return [condition.parse(part.strip()) for part in texts]
    return [condition.parse(text)]


def _check_wishes(conditions: Conditions, values: Mapping[str, Any]) -> None:
    """Raise UserError where the network has not learned what is left out."""
    missing = [name for name in conditions.wishes if name not in values]
    if missing and (len(missing) < len(conditions.wishes) or not conditions.dropout):
        name = missing[0]
        how = "together" if len(conditions.wishes) > 1 else "always"
        raise UserError(
            f"{name} is missing: this run was trained on {' and '.join(conditions.wishes)} {how}; "
            f"add {name}=VALUE"
        )


def describe(asked: Sequence[Annotation], columns: int | None) -> str:
    """Return a line that says what was asked for; nothing where that is nothing."""
    texts = [" ".join(f"{name}={value}" for name, value in a.items() if value) for a in asked]
    different = [text for text in dict.fromkeys(texts) if text]
    if not different:
        return ""
    more = f"; .. {len(different)} in all" if len(different) > MOST_LISTED else ""
    where = ", a column each" if columns else ""
    return f"  asked for      {'; '.join(different[:MOST_LISTED])}{more}{where}\n"
