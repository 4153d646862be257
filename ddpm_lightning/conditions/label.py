"""Label: to which of some named classes a clip belongs."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from ddpm_lightning.conditions.base import Condition

_MAX_LISTED = 10


class Label(Condition):
    """One vector for each name, all of them orthogonal; zeros for a clip without a label.

    Args:
        names: of the labels; a run takes those of its data where there are none. A clip with
            another one is a clip without a label.
    Raises:
        ValueError: for a name that is there twice.
    """

    is_wish = True
    rows: Tensor

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = [str(name) for name in names]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names of labels must differ, got {', '.join(self.names)}")
        self.choices, self.vector_width = self.names, len(self.names)
        # The last row is that of no label.
        rows = torch.cat([torch.eye(len(self.names)), torch.zeros(1, len(self.names))])
        self.register_buffer("rows", rows, persistent=False)

    def encode(self, values: Sequence[str | None]) -> dict[str, Tensor]:
        number = {name: i for i, name in enumerate(self.names)}
        chosen = [number.get(value or "", len(self.names)) for value in values]
        return {"vectors": self.rows[torch.tensor(chosen, device=self.rows.device)]}

    def __str__(self) -> str:
        names = ", ".join(self.names[:_MAX_LISTED]) + (", .." * (len(self.names) > _MAX_LISTED))
        return f"label, one of {len(self.names)}: {names}"

    def parse(self, text: str) -> str | None:
        if not text or text in self.names:
            return text or None
        near = get_close_matches(text, self.names, n=_MAX_LISTED, cutoff=0)
        raise ValueError(f"no clip was labelled {text!r}; the nearest are {', '.join(near)}")
