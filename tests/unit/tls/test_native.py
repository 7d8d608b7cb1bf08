"""The native part, and the OpenSSL that it has in common with Python's `ssl`."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.bindings import _rust

from hsmsign.model.errors import CapabilityMissingError, ConfigurationError
from hsmsign.tls import native
from tests.support.tls_serving import Certificates


@pytest.fixture
def other_openssl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Python whose `ssl` has an OpenSSL inside, as `cryptography` really has."""
    monkeypatch.setattr(native._ssl, "__file__", _rust.__file__)
    native._obstacle.cache_clear()
    yield
    monkeypatch.undo()
    native._obstacle.cache_clear()


def test_another_openssl_is_an_error_and_no_crash(other_openssl: None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for call in (native.certificate_of, native.trust_of, native.ask_for_staples):
        with pytest.raises(CapabilityMissingError, match="uses an OpenSSL of its own"):
            call(context)


def test_a_pointer_to_what_is_not_the_context_is_noticed() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert native._is_of(context, native._pointer(context))
    for change in ("num_tickets", "options", "verify_mode"):
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        value = {"num_tickets": 7, "options": other.options | ssl.OP_NO_TICKET, "verify_mode": ssl.CERT_OPTIONAL}[
            change
        ]
        setattr(other, change, value)
        assert not native._is_of(context, native._pointer(other))


def test_contexts_of_a_class_of_yours_will_do(tmp_path: Path) -> None:
    class Mine(ssl.SSLContext):
        pass

    files = Certificates(tmp_path)
    pem = files.issue("web", "localhost")
    for mode in (ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED):
        context = Mine(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = mode
        context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
        with pytest.raises(ConfigurationError, match="no certificate"):
            native.certificate_of(context)
        context.load_cert_chain(tmp_path / "web.pem", tmp_path / "web.key")
        assert native.certificate_of(context) == ssl.PEM_cert_to_DER_cert(pem.decode())
