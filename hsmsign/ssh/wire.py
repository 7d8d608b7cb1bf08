"""Messages of the SSH agent protocol (draft-ietf-sshm-ssh-agent): lengths, and nothing that has to be guessed.

Whoever can open the socket may send anything: what is not exactly a message is refused, and none is larger than
MAX_BYTES, as in OpenSSH.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hsmsign.model.errors import InvalidArgumentError

MAX_BYTES = 256 * 1024
"""Of one message (OpenSSH: AGENT_MAX_LEN)."""
LENGTH_BYTES = 4


class Number(enum.IntEnum):
    """Numbers of messages (section 6.1)."""

    FAILURE = 5
    SUCCESS = 6
    REQUEST_IDENTITIES = 11
    IDENTITIES_ANSWER = 12
    SIGN_REQUEST = 13
    SIGN_RESPONSE = 14
    EXTENSION = 27
    EXTENSION_RESPONSE = 29


class Flag(enum.IntFlag):
    """Flags of a SIGN_REQUEST (section 6.3)."""

    NONE = 0
    RSA_SHA2_256 = 2
    RSA_SHA2_512 = 4


class WireError(InvalidArgumentError):
    """Bytes that are no message of this protocol."""

    reason = "SSH_MESSAGE_INVALID"


@dataclass(frozen=True, slots=True)
class IdentitiesRequest:
    """Which keys are there?"""


@dataclass(frozen=True, slots=True)
class SignRequest:
    """Sign `data` with the key of this blob."""

    blob: bytes
    data: bytes
    flags: Flag


@dataclass(frozen=True, slots=True)
class ExtensionRequest:
    """Something that not every agent knows (section 4.8)."""

    name: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """A message that this agent does not serve: add, remove, lock and whatever else there is."""

    number: int


Request = IdentitiesRequest | SignRequest | ExtensionRequest | OtherRequest


class Reader:
    """Reads one message from its start to its end. Raises WireError where it is not what is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """One byte."""
        return self._take(1)[0]

    def uint32(self) -> int:
        """A number (RFC 4251, section 5)."""
        return int.from_bytes(self._take(4))

    def string(self) -> bytes:
        """Bytes behind their length (RFC 4251, section 5)."""
        return self._take(self.uint32())

    def rest(self) -> bytes:
        """What is left."""
        return self._take(len(self._data) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise WireError(f"{len(self._data) - self._at} bytes follow the end of a message")

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise WireError(f"a message ends {count - (len(self._data) - self._at)} bytes too early")
        self._at += count
        return self._data[self._at - count : self._at]


def string(data: bytes) -> bytes:
    """Bytes behind their length."""
    return len(data).to_bytes(4) + data


def length(head: bytes) -> int:
    """The length that stands before a message. Raises WireError for one that no message has."""
    found = int.from_bytes(head)
    if not 1 <= found <= MAX_BYTES:
        raise WireError(f"a message has 1 to {MAX_BYTES} bytes, not {found}")
    return found


def parse(message: bytes) -> Request:
    """A request, without the length before it. Raises WireError."""
    if not 1 <= len(message) <= MAX_BYTES:
        raise WireError(f"a message has 1 to {MAX_BYTES} bytes, not {len(message)}")
    reader = Reader(message)
    number = reader.byte()
    if number == Number.REQUEST_IDENTITIES:
        reader.end()
        return IdentitiesRequest()
    if number == Number.SIGN_REQUEST:
        blob, data, flags = reader.string(), reader.string(), reader.uint32()
        reader.end()
        if flags & ~(Flag.RSA_SHA2_256 | Flag.RSA_SHA2_512):
            raise WireError(f"a request to sign has flags that are not known: {flags:#x}")
        return SignRequest(blob, data, Flag(flags))
    if number == Number.EXTENSION:
        return ExtensionRequest(_word(reader.string()), reader.rest())
    return OtherRequest(number)


def _word(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    if not (0 < len(text) <= 64 and text.isascii() and text.isprintable()):
        raise WireError("the name of an extension is 1 to 64 bytes of printable ASCII")
    return text


def failure() -> bytes:
    """No."""
    return bytes([Number.FAILURE])


def identities(keys: list[tuple[bytes, str]]) -> bytes:
    """Blobs and comments. Those that fit: a client takes no larger message than we do."""
    body, count = b"", 0
    for blob, comment in keys:
        one = string(blob) + string(comment.encode())
        if 5 + len(body) + len(one) > MAX_BYTES:
            break
        body += one
        count += 1
    return bytes([Number.IDENTITIES_ANSWER]) + count.to_bytes(4) + body


def signature(blob: bytes) -> bytes:
    """A signature, as `keys.Identity.signature` makes its blob."""
    return bytes([Number.SIGN_RESPONSE]) + string(blob)


def extensions(*names: str) -> bytes:
    """The answer to the extension "query" (section 4.8.1): those that there are."""
    return bytes([Number.EXTENSION_RESPONSE]) + string(b"query") + b"".join(string(name.encode()) for name in names)
