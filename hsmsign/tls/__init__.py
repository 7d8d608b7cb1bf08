"""TLS for applications: device keys under the stacks that people have, who is at the other end, what it may do.

`server_context` and `client_context` are loaded when they are asked for: what only reads certificates of others needs
neither OpenSSL's provider nor a daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsmsign.tls.context import client_context, server_context, use_key
    from hsmsign.tls.reference import KeyReference

__all__ = ["KeyReference", "client_context", "server_context", "use_key"]


def __getattr__(name: str) -> Any:
    if name == "KeyReference":
        from hsmsign.tls.reference import KeyReference

        return KeyReference
    if name in __all__:
        from hsmsign.tls import context

        return getattr(context, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
