"""Page tokens: where the next page begins, and of which list."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from hsmsign.keyring.checks import fingerprint
from hsmsign.model.errors import InvalidArgumentError

PAGE_MAX = 1000
PAGE_DEFAULT = 100
_TOKEN_MAX = 512


def size(asked: int) -> int:
    """How many keys a page has. Raises InvalidArgumentError for a negative number."""
    if asked < 0:
        raise InvalidArgumentError(f"page_size is {asked}", hint=f"0 (for {PAGE_DEFAULT}) to {PAGE_MAX}")
    return min(asked or PAGE_DEFAULT, PAGE_MAX)


def token(after: str, labels: Mapping[str, str], backend: str) -> str:
    """The token of the page that begins after the key `after`."""
    text = json.dumps([after, _list(labels, backend)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def after(text: str, labels: Mapping[str, str], backend: str) -> str:
    """The key after which the page begins. Raises InvalidArgumentError for a token that is not ours."""
    if not text:
        return ""
    try:
        if len(text) > _TOKEN_MAX:
            raise ValueError
        begin, of = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgumentError("page_token is none of this daemon's", hint="begin again without one") from None
    if of != _list(labels, backend):
        raise InvalidArgumentError(
            "page_token belongs to a list with other filters", hint="keep labels and backend the same on every page"
        )
    return str(begin)


def _list(labels: Mapping[str, str], backend: str) -> str:
    return fingerprint(dict(labels), backend)[:16]
