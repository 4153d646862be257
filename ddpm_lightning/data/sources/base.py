"""The contract of a GIF source: named byte strings, which may change from run to run."""

from abc import ABC, abstractmethod


class Source(ABC):
    """A fixed, ordered set of GIFs. Decoding, filtering and caching are done elsewhere."""

    @abstractmethod
    def keys(self) -> list[str]:
        """The names of all GIFs, sorted, unique and not empty."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The content under a key. Raises GifError unreadable when it cannot be fetched."""

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
