"""Why a GIF could not be fetched: FetchError with its cause, and what aiohttp's errors mean.

Defines which causes may pass by themselves (transient: a later ingest may try again) and which
are worth another try at once. A status other than 200 is the cause http_404, http_503 and so on.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import aiohttp

from ddpm_lightning.data.ingest.addresses import REFUSED

_RETRIED = {
    "dns",  # the name has no address now
    "connect",  # no connection: refused, unreachable
    "reset",  # the connection was lost before the response began
    "incomplete",  # it was lost before the response ended, or Content-Length is too large
}
_TRANSIENT = _RETRIED | {
    "timed_out",  # the deadline passed
    "tls",  # no valid certificate: perhaps our clock or our certificates are at fault
    "bad_response",  # not HTTP
}
# The others last: bad_url, forbidden_address, too_many_redirects, too_large, not_a_gif, robots.
_TRANSIENT_STATUS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

_MAX_DETAIL = 200


class FetchError(Exception):
    """A URL without bytes: a cause (one word) and a detail (one line of ASCII)."""

    def __init__(self, cause: str, detail: object) -> None:
        line = " ".join(str(detail).split())[:_MAX_DETAIL]
        super().__init__(cause, line)
        self.cause = cause
        self.detail = "".join(
            c if " " <= c <= "~" else "?" for c in line
        )  # servers wrote some of it
        self.transient = cause in _TRANSIENT
        self.retried = cause in _RETRIED


class StatusError(FetchError):
    """A response with a status that is neither 200 nor a redirect."""

    def __init__(self, status: int) -> None:
        known = {known.value: known.phrase for known in HTTPStatus}
        super().__init__(f"http_{status}", known.get(status, "unknown status"))
        self.transient = self.retried = status >= 500 or status in _TRANSIENT_STATUS


@contextmanager
def named() -> Iterator[None]:
    """Turn whatever a server can make aiohttp raise into a FetchError."""
    try:
        yield
    except TimeoutError as error:
        raise FetchError("timed_out", "the deadline passed") from error
    except aiohttp.ClientConnectorError as error:
        raise FetchError(_connection_cause(error), error.os_error.strerror or error) from error
    except aiohttp.ClientPayloadError as error:
        raise FetchError("incomplete", error) from error
    except (aiohttp.ServerDisconnectedError, OSError) as error:
        raise FetchError("reset", error) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError) as error:
        raise FetchError("bad_url", type(error).__name__) from error
    except aiohttp.TooManyRedirects as error:
        raise FetchError("too_many_redirects", f"{len(error.history)} of them") from error
    except aiohttp.ClientResponseError as error:
        raise FetchError("bad_response", error.message) from error
    except aiohttp.ClientError as error:
        raise FetchError("bad_response", error) from error


def _connection_cause(error: aiohttp.ClientConnectorError) -> str:
    if error.os_error.errno == REFUSED:
        return "forbidden_address"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    return "dns" if isinstance(error.os_error, socket.gaierror) else "connect"
