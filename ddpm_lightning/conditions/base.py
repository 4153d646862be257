"""The contract of a condition: one value that is known of a clip becomes tensors for the network.

A condition has a name, its key in the group `condition`: `label`, say. A batch has for each clip an
annotation, which holds under that name what the clip's source knows; sample.py takes the name as a
key. A wish (label, caption) is left out of some training clips, so that the network learns what
clips are like without it and guidance has its second half; a fact (frame rate, augmentation) is
not, and is the same in both halves.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Condition(nn.Module, ABC):
    """Encodes the values of clips; what it learns is trained, averaged and saved with the denoiser.

    is_wish: whether it is dropped in training.
    vector_width, token_width: of what it adds to the vectors and the tokens of the network; 0 for
        nothing.
    choices: all of its values, where they can be listed.
    """

    is_wish: bool
    vector_width: int = 0
    token_width: int = 0
    choices: Sequence[Any] = ()

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> dict[str, Tensor]:
        """Return `vectors` (B, vector_width), `tokens` (B, L, token_width), or both.

        Vectors have a norm of about 1, which the network counts on (see LogSNREmbedding). L does
        not depend on the values. Every trained parameter takes part whatever the values are, as
        training on several devices asks.

        Args:
            values: of B clips; None where it is not known, or dropped.
        """

    def prepare(self, values: Sequence[Any]) -> None:
        """Make ready for training on clips with these values, and keep what took long.

        Args:
            values: all that there are at the start of a run; others may come.
        Raises:
            ValueError: in one line, where nothing could be learned from them.
        """

    def null(self, num_clips: int) -> dict[str, Tensor]:
        """Return the tensors of clips of which nothing is known."""
        return self.encode([None] * num_clips)

    @abstractmethod
    def __str__(self) -> str:
        """Return what it is, for the overview of a run."""

    def parse(self, text: str) -> Any:
        """Return the value that a user has typed, None for the empty text.

        Raises:
            ValueError: in one line, for a value that there is not.
        """
        return text or None
