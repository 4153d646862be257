"""How the C library's allocator treats the memory that tensors free."""

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as mallopt numbers them


def keep_freed() -> None:
    """Make GNU's C library reuse what tensors free for the next ones.

    Otherwise freed memory returns to the system, which hands it out again page by page.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        # Older ones take no more than 32 MiB.
        if library.mallopt(_MMAP_THRESHOLD, 2**30) or library.mallopt(_MMAP_THRESHOLD, 2**25):
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
