"""`HostCheck`: which names a server on a loopback address answers to.

A web page can give its own name the address 127.0.0.1 and so reach a server that only listens there
(DNS rebinding). The browser then sends the page's name as Host or Origin, which is refused.
"""

import re
from collections.abc import Collection, Iterable
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from modernbert.serving.answers import error_response
from modernbert.serving.refusal import Refusal

ANY = "*"

# Nothing but a name and a port: what else an address may have, others may read in another way.
_NAME = r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?"
_HOST = re.compile(_NAME, re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://" + _NAME, re.ASCII | re.IGNORECASE)


class HostCheck:
    """An application that refuses requests to other names than its own.

    Args:
        app: What answers the others.
        names: Host names that are allowed, besides those of the loopback addresses.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self.names = app, {_name_of(name, _HOST) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refusal = self._refusal(scope["headers"]) if scope["type"] == "http" else None
        await (self.app if refusal is None else error_response(refusal))(scope, receive, send)

    def _refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        for header, value in headers:
            text = value.decode("latin-1")
            if header == b"host" and not self._allows(text, _HOST):
                return _forbidden("host", text)
            if header == b"origin" and not self._allows(text, _ORIGIN):
                return _forbidden("origin", text)
        return None

    def _allows(self, address: str, form: re.Pattern[str]) -> bool:
        name = _name_of(address, form)
        return name != "" and (is_loopback(name) or name in self.names)


def _name_of(address: str, form: re.Pattern[str]) -> str:
    """The name in an address; empty where it has another form.

    >>> [_name_of(each, _HOST) for each in ("[::1]:80", "Example.org.", "a@b", "a/b")]
    ['::1', 'example.org', '', '']
    """
    found = form.fullmatch(address)
    return "" if found is None else found[1].strip("[]").lower().rstrip(".")


def is_loopback(name: str) -> bool:
    """Return whether a host name or an address can mean nothing but this machine.

    >>> [is_loopback(name) for name in ("localhost", "127.0.0.2", "::1", "example.org")]
    [True, True, True, False]
    """
    name = name.lower().rstrip(".")
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _forbidden(header: str, value: str) -> Refusal:
    return Refusal(
        403,
        "Forbidden",
        f"{header}: got {value!r}, but this server answers to names of this machine alone; "
        "add others with --allowed-host",
    )
