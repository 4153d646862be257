"""X-Robots-Tag, the header by which a site refuses the use of what it serves.

As in img2dataset, noindex, noimageindex, noai and noimageai mean no, when said to everyone or to
this tool by name:   X-Robots-Tag: noai      X-Robots-Tag: otherbot: noindex, ddpm_lightning: noai
"""

from collections.abc import Iterable

ROBOT = "ddpm_lightning"

_REFUSALS = {"noindex", "noimageindex", "noai", "noimageai"}
_NO_NAME = "unavailable_after"  # a directive with a colon of its own


def refusal(headers: Iterable[str]) -> str | None:
    """The directive by which one of the X-Robots-Tag headers refuses this tool."""
    for header in headers:
        addressed = True
        for part in header.lower().split(","):
            name, colon, directive = part.rpartition(":")
            if colon and _NO_NAME not in name:
                addressed = name.strip() == ROBOT
            if addressed and directive.strip() in _REFUSALS:
                return directive.strip()
    return None
