"""Several conditions at once: their vectors side by side, their tokens one after another.

Wishes are dropped jointly, with one probability p: dropped one by one, each of k would need p^(1/k)
for the network to see clips without any of them as often.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.data.dataset import Annotation


class Conditions(nn.Module):
    """Encodes annotations with each of its members, none or several.

    Args:
        members: conditions by their names.
        dropout: the probability that a training clip loses all its wishes.
    """

    def __init__(
        self, members: Mapping[str, Condition] | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.members: Mapping[str, Condition] = nn.ModuleDict(members or {})  # type: ignore[assignment]
        self.dropout = dropout

    @property
    def vector_width(self) -> int:
        """Return the width of the vectors, 0 without any."""
        return sum(member.vector_width for member in self.members.values())

    @property
    def token_width(self) -> int:
        """Return the width of the tokens, the largest of the members'; 0 without any."""
        return max((member.token_width for member in self.members.values()), default=0)

    @property
    def wishes(self) -> list[str]:
        """Return the names of the members that are wishes."""
        return [name for name, member in self.members.items() if member.is_wish]

    def encode(self, annotations: Sequence[Annotation]) -> dict[str, Tensor]:
        """Return the network's conditions: vectors (B, vector_width), tokens (B, L, token_width).

        Args:
            annotations: of B clips; what an annotation does not have becomes that member's null.
        """
        encoded = [
            member.encode([annotation.get(name) for annotation in annotations])
            for name, member in self.members.items()
        ]
        conditions = {}
        if self.vector_width:
            conditions["vectors"] = torch.cat([e["vectors"] for e in encoded if "vectors" in e], 1)
        if width := self.token_width:
            tokens = [e["tokens"] for e in encoded if "tokens" in e]
            conditions["tokens"] = torch.cat([F.pad(t, (0, width - t.shape[2])) for t in tokens], 1)
        return conditions

    def prepare(self, annotations: Sequence[Annotation]) -> None:
        """Make each member ready for training on clips of which this is known.

        Raises:
            ValueError: in one line, where nothing could be learned from it.
        """
        for name, member in self.members.items():
            member.prepare([known[name] for known in annotations if name in known])

    @torch.no_grad()
    def null(self, num_clips: int) -> dict[str, Tensor]:
        """Return the conditions of clips of which nothing is known: example inputs for whatever
        needs some, such as counts of operations and of memory; without gradients.
        """
        return self.encode([{}] * num_clips)

    def drop(self, annotations: Sequence[Annotation], draws: Tensor) -> list[Annotation]:
        """Return the annotations without any wish where draws (B,) in [0, 1) are below dropout."""
        dropped = (draws < self.dropout).tolist()
        bare = self.without_wishes(annotations)
        return [b if drop else a for a, b, drop in zip(annotations, bare, dropped, strict=True)]

    def without_wishes(self, annotations: Sequence[Annotation]) -> list[Annotation]:
        """Return the annotations with their facts alone."""
        wishes = self.wishes
        return [{k: v for k, v in a.items() if k not in wishes} for a in annotations]
