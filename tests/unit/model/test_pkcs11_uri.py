from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.backends.uri import Pkcs11Uri
from hsmsign.model.errors import UriError
from hsmsign.model.pkcs11_uri import ObjectUri, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)


@given(token=TEXT, label=TEXT, object_id=st.binary(min_size=1, max_size=40))
def test_what_a_backend_writes_is_read_back(token: str, label: str, object_id: bytes) -> None:
    written = str(Pkcs11Uri(token=token, object=label, type="private", id=object_id))
    assert parse(written) == ObjectUri(token=token, object=label, id=object_id)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UriError):
        uri = parse("pkcs11:" + text)
        assert uri.id or uri.object


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pkcs11:",
        "https://example.com",
        "pkcs11:token=x",
        "pkcs11:id=",
        "pkcs11:id=%0",
        "pkcs11:id=%zz",
        "pkcs11:object=%ff",
        "pkcs11:object=a b",
        "pkcs11:object=a;object=b",
        "pkcs11:object",
        "pkcs11:object=a;type=public",
        "pkcs11:object=a;slot-id=1",
        "pkcs11:object=a;;",
        "pkcs11:object=a?module-path=/tmp/evil.so",
        "pkcs11:object=a?pin-source=file:/x",
        "pkcs11:object=" + "a" * 5000,
    ],
)
def test_what_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(UriError):
        parse(text)


@pytest.mark.parametrize(
    "text", ["pkcs11:object=a?pin-value=sesame", "pkcs11:sesame=sesame", "pkcs11:object=%zzsesame"]
)
def test_a_pin_is_never_repeated(text: str) -> None:
    with pytest.raises(UriError) as caught:
        parse(text.replace("pkcs11:sesame", "pkcs11:Sesame"))
    assert "sesame" not in (caught.value.message + caught.value.hint).lower()
