"""What people do with a private key works with one that is elsewhere."""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import pickle
import subprocess

import josepy
import jwt
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from hsmsign.client import jose
from hsmsign.model.errors import PrivateKeyExportError

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CA = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo CA")])
LEAF = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web-1")])
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
FAMILIES = {
    "ecdsa-p256": (ec.EllipticCurvePrivateKey, hashes.SHA256()),
    "ecdsa-p384": (ec.EllipticCurvePrivateKey, hashes.SHA384()),
    "ecdsa-p521": (ec.EllipticCurvePrivateKey, hashes.SHA512()),
    "rsa-2048": (rsa.RSAPrivateKey, hashes.SHA256()),
    "ed25519": (ed25519.Ed25519PrivateKey, None),
}


def make(client, algorithm):
    client.create_key("k", algorithm)
    return client.key("k")


def certificate(key, algorithm, subject=CA, public=None, **how):
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(CA)
        .public_key(public or key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=30000))
        .add_extension(x509.BasicConstraints(ca=subject is CA, path_length=None), critical=True)
        .sign(key, algorithm, **how)
    )


@pytest.mark.parametrize("algorithm", FAMILIES)
def test_every_builder_of_x509_takes_a_remote_key(client, algorithm):
    key, (family, hashed) = make(client, algorithm), FAMILIES[algorithm]
    assert isinstance(key, family)
    root = certificate(key, hashed)
    root.verify_directly_issued_by(root)
    assert x509.CertificateSigningRequestBuilder().subject_name(LEAF).sign(key, hashed).is_signature_valid
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(CA)
        .last_update(NOW)
        .next_update(NOW + dt.timedelta(days=1))
        .sign(key, hashed)
    )
    assert crl.is_signature_valid(key.public_key())
    response = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            root, root, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, NOW, NOW + dt.timedelta(days=1), None, None
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, root)
        .sign(key, hashed)
    )
    assert response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    signed = (response.signature, response.tbs_response_bytes)
    if hashed is None:
        key.public_key().verify(*signed)
    elif family is rsa.RSAPrivateKey:
        key.public_key().verify(*signed, padding.PKCS1v15(), hashed)
    else:
        key.public_key().verify(*signed, ec.ECDSA(hashed))


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "rsa-2048", "ed25519"])
def test_openssl_accepts_a_chain_made_with_a_remote_key(client, tmp_path, algorithm):
    key, (_, hashed) = make(client, algorithm), FAMILIES[algorithm]
    how = {"rsa_padding": PSS} if algorithm == "rsa-2048" else {}
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    root = certificate(key, hashed)
    leaf = certificate(key, hashed, LEAF, leaf_key.public_key(), **how)
    for name, one in (("root", root), ("leaf", leaf)):
        (tmp_path / name).write_bytes(one.public_bytes(serialization.Encoding.PEM))
    checked = subprocess.run(
        ["openssl", "verify", "-CAfile", tmp_path / "root", tmp_path / "leaf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout.endswith("leaf: OK\n"), checked.stderr


@pytest.mark.parametrize(
    ("algorithm", "jose_algorithm"),
    [
        ("ecdsa-p256", "ES256"),
        ("ecdsa-p521", "ES512"),
        ("rsa-2048", "RS256"),
        ("rsa-2048", "PS384"),
        ("ed25519", "EdDSA"),
    ],
)
def test_pyjwt_takes_a_remote_key(client, algorithm, jose_algorithm):
    key = make(client, algorithm)
    token = jwt.encode({"sub": "web"}, key, algorithm=jose_algorithm)
    assert jwt.decode(token, key.public_key(), algorithms=[jose_algorithm]) == {"sub": "web"}


@pytest.mark.parametrize(
    ("algorithm", "kind", "signature"),
    [("ecdsa-p256", josepy.JWKEC, josepy.ES256), ("rsa-2048", josepy.JWKRSA, josepy.RS256)],
)
def test_josepy_takes_a_remote_key(client, algorithm, kind, signature):
    key = make(client, algorithm)
    public = kind(key=key.public_key())
    for one in (kind(key=key), jose.jwk(key)):
        jws = josepy.JWS.sign(payload=b"acme", key=one, alg=signature, include_jwk=True)
        assert jws.verify(public)
        assert one.public_key() == public


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "rsa-2048"])
def test_a_jwk_of_a_remote_key_is_written_without_a_private_part(client, algorithm):
    made = jose.jwk(make(client, algorithm))
    assert "d" not in made.to_json()
    assert made.to_json() == made.public_key().to_json()
    assert made.thumbprint() == made.public_key().thumbprint()


def test_large_and_prehashed_inputs_are_signed_by_their_digest(client):
    key = make(client, "ecdsa-p256")
    for size in (0, 10, 3 << 20):
        data = bytes(size)
        key.public_key().verify(key.sign(data, ec.ECDSA(hashes.SHA256())), data, ec.ECDSA(hashes.SHA256()))
    algorithm = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    digest = hashlib.sha256(b"x").digest()
    key.public_key().verify(key.sign(digest, algorithm), b"x", ec.ECDSA(hashes.SHA256()))
    key.public_key().verify(key.sign(memoryview(b"x"), ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))


def test_a_key_stays_with_its_version_over_a_rotation(client):
    before = make(client, "ecdsa-p256")
    client.rotate_key("k")
    signature = before.sign(b"m", ec.ECDSA(hashes.SHA256()))
    before.public_key().verify(signature, b"m", ec.ECDSA(hashes.SHA256()))
    after = client.key("k")
    assert after.key_version == "keys/k/versions/2"
    assert client.key("keys/k/versions/1").public_key() == before.public_key()
    with pytest.raises(InvalidSignature):
        after.public_key().verify(signature, b"m", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "rsa-2048", "ed25519"])
def test_a_remote_key_cannot_be_exported_or_pickled_and_copies_are_itself(client, algorithm):
    key = make(client, algorithm)
    with pytest.raises(PrivateKeyExportError, match="on a device"):
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    export = key.private_bytes_raw if algorithm == "ed25519" else key.private_numbers
    with pytest.raises(PrivateKeyExportError):
        export()
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(key)
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key


def test_a_hash_that_is_not_the_curves_is_refused_with_the_right_one(client):
    key = make(client, "ecdsa-p384")
    with pytest.raises(UnsupportedAlgorithm, match=r"hashes\.SHA384\(\)"):
        key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(UnsupportedAlgorithm, match="deterministic"):
        key.sign(b"m", ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    with pytest.raises(UnsupportedAlgorithm, match="key agreement"):
        key.exchange(ec.ECDH(), key.public_key())


@pytest.mark.parametrize(
    ("chosen", "hashed", "word"),
    [
        (padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256(), "MGF1"),
        (padding.PSS(padding.MGF1(hashes.SHA256()), 20), hashes.SHA256(), "salt"),
        (padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH), hashes.SHA256(), "salt"),
        (padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), hashes.SHA256(), "salt"),
        (padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None), hashes.SHA256(), "PKCS1v15"),
        (padding.PKCS1v15(), hashes.SHA1(), "SHA256, SHA384 or SHA512"),
        (padding.PKCS1v15(), utils.NoDigestInfo(), "DigestInfo"),
    ],
)
def test_what_no_rsa_scheme_has_is_refused(client, state, chosen, hashed, word):
    key = make(client, "rsa-2048")
    with pytest.raises(UnsupportedAlgorithm, match=word):
        key.sign(b"m", chosen, hashed)
    assert "Sign" not in state.calls


def test_rsa_signs_with_both_paddings_and_prehashed(client):
    key = make(client, "rsa-2048")
    digest = hashlib.sha256(b"m").digest()
    for chosen in (padding.PKCS1v15(), PSS):
        for data, algorithm in ((b"m", hashes.SHA256()), (digest, utils.Prehashed(hashes.SHA256()))):
            key.public_key().verify(key.sign(data, chosen, algorithm), b"m", chosen, hashes.SHA256())
    with pytest.raises(UnsupportedAlgorithm, match="decryption"):
        key.decrypt(b"x", padding.PKCS1v15())
