import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.backends.uri import Pkcs11Uri, parse
from hsmsign.model.errors import UriError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)


@given(token=TEXT, serial=TEXT, label=TEXT, object_id=st.binary(min_size=1, max_size=40))
def test_what_is_written_is_read_back(token: str, serial: str, label: str, object_id: bytes) -> None:
    uri = Pkcs11Uri(token=token, serial=serial, object=label, type="private", id=object_id)
    assert parse(str(uri)) == uri


@given(st.text())
def test_any_text_is_read_or_refused_as_an_uri(text: str) -> None:
    for candidate in (text, "pkcs11:" + text):
        with contextlib.suppress(UriError):
            parse(candidate)


def test_an_id_is_bytes_and_written_in_percents() -> None:
    assert parse("pkcs11:id=%01A%fF").id == b"\x01A\xff"
    assert str(Pkcs11Uri(id=b"\x01A")) == "pkcs11:id=%01%41"


@pytest.mark.parametrize("query", ["pin-value=1234", "pin-source=file:/etc/pin", "module-path=/tmp/evil.so"])
def test_a_callers_uri_brings_no_pin_and_no_library(query: str) -> None:
    with pytest.raises(UriError) as caught:
        parse(f"pkcs11:object=a?{query}")
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "pkcs12:object=a", "pkcs11", "pkcs11:object", "pkcs11:id=%0", "pkcs11:id=%zz", "pkcs11:objekt=a",
     "pkcs11:object=a;object=b", "pkcs11:object=%ff", "pkcs11:object=a;type=public", "pkcs11:object=a?what=1"],
)  # fmt: skip
def test_what_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(UriError):
        parse(text)


def test_a_uri_that_names_no_object_finds_nothing() -> None:
    with pytest.raises(UriError, match="names no object"):
        _ = parse("pkcs11:token=a").query
