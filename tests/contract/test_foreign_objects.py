"""Objects that other programs put on the token, as a host finds and uses them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.backends.base import ObjectQuery
from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.device import DeviceKey, JobStatus
from hsmsign.model.errors import ObjectAmbiguousError
from hsmsign.softhsm.provision import Provisioned
from tests.support import softhsm
from tests.support.host_process import HostProcess
from tests.support.verify import verify

P256 = Scheme.ECDSA_P256_SHA256
PREAMBLE = """
import sys, pkcs11
from datetime import datetime, timedelta
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters, encode_ec_public_key
token = next(t for t in pkcs11.lib(sys.argv[1]).get_tokens() if t.label == "test")
session = token.open(rw=True, user_pin=open(sys.argv[2]).read().strip())

def make(id, label, public=True):
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    made, private = session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(
        store=True, id=id, label=label
    )
    spki = encode_ec_public_key(made)
    if not public:
        made.destroy()
    return spki
"""

Foreign = Callable[[str], bytes]


@pytest.fixture
def token(tmp_path: Path) -> Provisioned:
    return softhsm.make_token(tmp_path / "token")


@pytest.fixture
def foreign(token: Provisioned) -> Foreign:
    """Runs a script of another program on the token; what it wrote to its output."""

    def run(script: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + script, str(softhsm.find_module()), str(token.pin_file)],
            env={**os.environ, "SOFTHSM2_CONF": str(token.conf)},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


@pytest.fixture
def start(token: Provisioned, tmp_path: Path) -> Iterator[Callable[[], HostProcess]]:
    started: list[HostProcess] = []

    def begin() -> HostProcess:
        started.append(HostProcess(softhsm.config_for(token), tmp_path))
        started[-1].wait_for_state("READY")
        return started[-1]

    yield begin
    for host in started:
        host.stop()


def signs(host: HostProcess, key: DeviceKey) -> None:
    (result,) = host.signing().sign(key.locator, P256, [b"message"])
    assert result.status is JobStatus.OK
    verify(key.public_key, P256, result.signature, b"message")


def test_two_keys_with_one_id_are_told_apart_by_their_labels(
    start: Callable[[], HostProcess], foreign: Foreign
) -> None:
    foreign('make(b"\\x07", "one"); make(b"\\x07", "two")')
    host = start()
    both = host.find(ObjectQuery(id=b"\x07"))
    assert len({key.public_key for key in both}) == 2
    (one,) = host.find(ObjectQuery(id=b"\x07", label="one"))
    (two,) = host.find(ObjectQuery(label="two"))
    assert one.public_key != two.public_key
    for key in (one, two):
        assert host.find(ObjectQuery(locator=key.locator)) == [key]
        signs(host, key)
    assert host.destroy(one.locator) is True
    assert host.find(ObjectQuery(id=b"\x07", label="one")) == []
    signs(host, two)


def test_two_keys_of_one_id_and_label_are_neither_signed_with_nor_destroyed(
    start: Callable[[], HostProcess], foreign: Foreign
) -> None:
    foreign('make(b"\\x07", "same"); make(b"\\x07", "same")')
    host = start()
    locator = b"\x01\x07\x04same"
    with pytest.raises(ObjectAmbiguousError, match=r"several private keys .* 07 .* 'same'"):
        host.find(ObjectQuery(label="same"))
    (result,) = host.signing().sign(locator, P256, [b"message"])
    assert result.status is JobStatus.KEY_NOT_FOUND
    with pytest.raises(ObjectAmbiguousError, match="none was destroyed"):
        host.destroy(locator)
    assert (
        foreign(
            'print(len(list(session.get_objects({Attribute.LABEL: "same", Attribute.CLASS: ObjectClass.PRIVATE_KEY}))))'
        )
        == b"2\n"
    )


def test_a_key_without_its_public_object_is_known_by_its_certificate(
    start: Callable[[], HostProcess], foreign: Foreign
) -> None:
    certificate = foreign(
        """
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
name = x509.Name.from_rfc4514_string("CN=x")
builder = x509.CertificateBuilder(name, name, load_der_public_key(make(b"\\x09", "web", public=False)), 7)
now = datetime(2026, 1, 1)
builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
der = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
session.create_object({
    Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
    Attribute.TOKEN: True, Attribute.ID: b"\\x09", Attribute.LABEL: "web", Attribute.VALUE: der,
    Attribute.SUBJECT: name.public_bytes(),
})
sys.stdout.buffer.write(der)
"""
    )
    public = x509.load_der_x509_certificate(certificate).public_key()
    host = start()
    (key,) = host.find(ObjectQuery(label="web"))
    assert key.algorithm is KeyAlgorithm.EC_P256
    assert key.public_key == public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signs(host, key)


def test_a_public_key_alone_is_no_key_to_sign_with(start: Callable[[], HostProcess], foreign: Foreign) -> None:
    foreign(
        """
make(b"\\x0b", "half")
session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=b"\\x0b").destroy()
"""
    )
    host = start()
    assert host.find(ObjectQuery(label="half")) == []
    (result,) = host.signing().sign(b"\x01\x0b\x00", P256, [b"message"])
    assert result.status is JobStatus.KEY_NOT_FOUND
