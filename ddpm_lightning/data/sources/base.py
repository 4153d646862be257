"""The contract of a source: named byte strings, which may change from run to run."""

from abc import ABC, abstractmethod

from ddpm_lightning.data.animation import Animation
from ddpm_lightning.data.gif import read_gif
from ddpm_lightning.data.gif_blocks import DEFAULT_LIMITS, Limits


class Source(ABC):
    """A fixed, ordered set of files, by default GIFs. Filtering and caching are done elsewhere.

    limits: what one file may cost.
    """

    limits: Limits = DEFAULT_LIMITS

    @abstractmethod
    def keys(self) -> list[str]:
        """The names of all GIFs, sorted, unique and not empty."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The content under a key. Raises GifError unreadable when it cannot be fetched."""

    def open(self, data: bytes, limits: Limits) -> Animation:
        """Return what the bytes of a file show. Raises GifError."""
        return read_gif(data, limits)

    def label(self, key: str) -> str:
        """Return the class of the GIF under a key; empty where there is none."""
        return ""

    def captions(self, key: str) -> tuple[str, ...]:
        """Return the captions of the GIF under a key, of which there may be none."""
        return ()

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when keys or contents may have changed; cheap, reads no content."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for messages and logs, such as the folder's path."""
