"""What fetching may cost, us and the servers: FetchLimits, the configuration of a Fetcher."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FetchLimits:
    """Limits the fetching of one URL, from one host, and of everything together.

    deadline_s covers all tries, redirects and back-off of one URL; waiting for a host's turn, which
    per_host, pause_s and a server's Retry-After ask for, is not counted. Bodies beyond 2 MiB
    are read eight at a time, which bounds what is in memory.
    """

    deadline_s: float = 30.0
    max_bytes: int = 32 * 2**20
    max_redirects: int = 5
    max_tries: int = 4
    backoff_s: float = 1.0  # a random wait of at most 1, 2, 4 ... times this before another try
    retry_after_cap_s: float = 120.0
    per_host: int = 8  # requests at one host at the same time
    pause_s: float = 0.02  # between the starts of two requests at one host
    concurrency: int = 64  # requests at the same time, all hosts together
    allow_loopback: bool = False  # for tests only: URLs may reach servers on this machine

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_tries", "per_host", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_redirects", "backoff_s", "retry_after_cap_s", "pause_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite, at least 0, got {getattr(self, name)}")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be positive and finite, got {self.deadline_s}")
