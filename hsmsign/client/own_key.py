"""A client whose own key, the one that proves to a daemon who it is, is a device key of another daemon.

`hsmsign:keys/NAME?endpoint=unix:///path/to/socket` names one: a key of the daemon behind that socket, which knows
callers by their uid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from hsmsign.model import names
from hsmsign.model.errors import ConfigurationError, HsmsignError, ResourceNameError, UnavailableError

if TYPE_CHECKING:
    import grpc

    from hsmsign.client.client import Client

SCHEME = "hsmsign:"
_FORM = "it looks like hsmsign:keys/machine?endpoint=unix:///run/hsmsign/hsmsign.sock"
_ASKING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A key, and the Unix socket of the daemon that has it."""

    name: str
    """`keys/NAME`, or one version of it."""
    endpoint: str
    """`unix:///path/to/socket`"""

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}?endpoint={self.endpoint}"


def parse(text: object) -> DeviceKey | None:
    """The device key that `text` names; None where it is the path of a file. Raises ConfigurationError."""
    if not isinstance(text, str) or not text.startswith(SCHEME):
        return None
    name, _, query = text.removeprefix(SCHEME).partition("?")
    said = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    if [key for key, _ in said] != ["endpoint"]:
        raise ConfigurationError(f"{text!r} does not say, once, which daemon has the key", hint=_FORM)
    endpoint = said[0][1]
    if not endpoint.startswith("unix:///"):
        raise ConfigurationError(
            f"{text!r}: the daemon with the client's key is reached over a Unix socket, not {endpoint!r}", hint=_FORM
        )
    try:
        return DeviceKey(str(names.parse(names.expand(unquote(name)))), endpoint)
    except ResourceNameError as error:
        raise ConfigurationError(f"{text!r}: {error.message}", hint=_FORM) from None


class OwnKey:
    """The connection to the daemon that has the key, and what became of the last handshake."""

    def __init__(self, key: DeviceKey, client: Client) -> None:
        self._key = key
        self._client = client
        self._failure: HsmsignError | None = None

    def credentials(self, ca: bytes, certificate: bytes) -> grpc.ChannelCredentials:
        """What proves us. Asks the daemon which public key it is; raises ConfigurationError and what that raises."""
        from hsmsign.client import device_tls

        try:
            return device_tls.channel_credentials(
                (self._client, self._key.name), certificate, ca, on_failure=self._became
            )
        except HsmsignError as error:
            error.hint = f"this is about the client's own key, {self._key}; {error.hint}".rstrip("; ")
            raise

    def explain(self, error: HsmsignError) -> HsmsignError:
        """A call's error, or the signature that failed where that is why nobody could be reached."""
        failure = self._failure
        if failure is None or not isinstance(error, UnavailableError) or "endpoint" not in error.metadata:
            return error
        return UnavailableError(
            f"cannot prove to {error.metadata['endpoint']} who we are: {failure.message}",
            hint=f"this is about the client's own key, {self._key}; {failure.hint}".rstrip("; "),
            metadata={**error.metadata, "reason": failure.reason},
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _became(self, failure: HsmsignError | None) -> None:
        self._failure = failure


def find(key: Path | str | None) -> OwnKey | None:
    """A connection for the key where it is on a device; None where it is a file."""
    device = parse(key)
    if device is None:
        return None
    from hsmsign.client.client import Client
    from hsmsign.client.configuration import Endpoint

    return OwnKey(device, Client(Endpoint(device.endpoint), deadline=_ASKING_SECONDS))
