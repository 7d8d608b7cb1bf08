"""PKCS #11 objects: what a key is made with, what is read back, and its public key as SPKI.

Nothing here logs in or keeps a session; everything takes python-pkcs11's objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType, Mechanism

from hsmsign.model.algorithms import Family, KeyAlgorithm
from hsmsign.model.device import DeviceFacts

PUBLIC_KEY_INFO = 0x129
"""CKA_PUBLIC_KEY_INFO (PKCS #11 2.40, section 4.9), which python-pkcs11 does not name."""
LOCATOR_PART_MAX = 255

_OID_P256 = bytes.fromhex("06082a8648ce3d030107")
_OID_P384 = bytes.fromhex("06052b81040022")
_OID_P521 = bytes.fromhex("06052b81040023")
_OID_ED25519 = bytes.fromhex("06032b6570")
_NAME_ED25519 = b"\x13\x0cedwards25519"

_CURVES: dict[bytes, KeyAlgorithm] = {
    _OID_P256: KeyAlgorithm.EC_P256,
    _OID_P384: KeyAlgorithm.EC_P384,
    _OID_P521: KeyAlgorithm.EC_P521,
    _OID_ED25519: KeyAlgorithm.ED25519,
    _NAME_ED25519: KeyAlgorithm.ED25519,
    bytes.fromhex("06092b06010401da470f01"): KeyAlgorithm.ED25519,  # the OID of before RFC 8410
}
_PARAMETERS = {algorithm: parameters for parameters, algorithm in reversed(_CURVES.items())}
_CRYPTOGRAPHY_CURVES: dict[KeyAlgorithm, ec.EllipticCurve] = {
    KeyAlgorithm.EC_P256: ec.SECP256R1(),
    KeyAlgorithm.EC_P384: ec.SECP384R1(),
    KeyAlgorithm.EC_P521: ec.SECP521R1(),
}
_RSA = {a.bits: a for a in KeyAlgorithm if a.family is Family.RSA}

GENERATE: dict[Family, Mechanism] = {
    Family.EC: Mechanism.EC_KEY_PAIR_GEN,
    Family.RSA: Mechanism.RSA_PKCS_KEY_PAIR_GEN,
    Family.ED25519: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
}
SIGN: dict[Family, Mechanism] = {
    Family.EC: Mechanism.ECDSA,
    Family.RSA: Mechanism.RSA_PKCS,
    Family.ED25519: Mechanism.EDDSA,
}
KEY_TYPE: dict[Family, KeyType] = {
    Family.EC: KeyType.EC,
    Family.RSA: KeyType.RSA,
    Family.ED25519: KeyType.EC_EDWARDS,
}
_FAMILY = {key_type: family for family, key_type in KEY_TYPE.items()}


class Mapper(AttributeMapper):
    """How attributes are written and read: nothing is added to a template, and odd values do not raise."""

    def __init__(self) -> None:
        super().__init__()
        number = self.attribute_types[Attribute.MODULUS_BITS][1]
        text = (lambda value: value.encode(), lambda value: value.decode("utf-8", "replace"))
        for attribute in (Attribute.KEY_TYPE, Attribute.KEY_GEN_MECHANISM):
            # a vendor's own key type is no member of the enum
            self.attribute_types[attribute] = (self.attribute_types[attribute][0], number)
        self.attribute_types[Attribute.LABEL] = text
        self.attribute_types[Attribute.UNIQUE_ID] = text
        self.attribute_types[PUBLIC_KEY_INFO] = (bytes, bytes)  # type: ignore[index]

    def public_key_template(self, **_asked: Any) -> dict[Attribute, Any]:
        """Only what every public key has; the rest is in `public_template`."""
        return {Attribute.CLASS: ObjectClass.PUBLIC_KEY}

    def private_key_template(self, **_asked: Any) -> dict[Attribute, Any]:
        """Only what every private key has; the rest is in `private_template`."""
        return {Attribute.CLASS: ObjectClass.PRIVATE_KEY}


def read(thing: Any, attributes: Iterable[int]) -> dict[int, Any]:
    """The attributes of an object that it has and shows; the others are not in the answer.

    Many at once, and one by one where the module does not answer that as the standard says.
    """
    wanted = list(attributes)
    try:
        return dict(thing.get_attributes(wanted))
    except PKCS11Error as error:
        if len(wanted) == 1:
            if _says_no(error):
                return {}
            raise
    found: dict[int, Any] = {}
    for attribute in wanted:
        found.update(read(thing, [attribute]))
    return found


def _says_no(error: PKCS11Error) -> bool:
    return type(error).__name__ in ("AttributeTypeInvalid", "AttributeSensitive", "FunctionFailed")


def curve_parameters(algorithm: KeyAlgorithm, *, as_name: bool = False) -> bytes:
    """CKA_EC_PARAMS; `as_name` writes Ed25519 as a PrintableString, which some modules want."""
    return _NAME_ED25519 if as_name and algorithm is KeyAlgorithm.ED25519 else _PARAMETERS[algorithm]


def public_template(algorithm: KeyAlgorithm, object_id: bytes, label: str) -> dict[Attribute, Any]:
    """What the public half is made with."""
    template: dict[Attribute, Any] = {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.VERIFY: True,
        Attribute.ID: object_id,
        Attribute.LABEL: label,
    }
    if algorithm.family is Family.RSA:
        template |= {
            Attribute.ENCRYPT: False,
            Attribute.WRAP: False,
            Attribute.MODULUS_BITS: algorithm.bits,
            Attribute.PUBLIC_EXPONENT: b"\x01\x00\x01",
        }
    return template


def private_template(algorithm: KeyAlgorithm, object_id: bytes, label: str) -> dict[Attribute, Any]:
    """What the private half is made with: on the token, sensitive, not extractable, for signing only."""
    template: dict[Attribute, Any] = {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.SIGN: True,
        Attribute.DERIVE: False,
        Attribute.ID: object_id,
        Attribute.LABEL: label,
    }
    if algorithm.family is Family.RSA:
        template |= {Attribute.DECRYPT: False, Attribute.UNWRAP: False, Attribute.SIGN_RECOVER: False}
    return template


def generate(session: Any, algorithm: KeyAlgorithm, object_id: bytes, label: str, *, as_name: bool) -> tuple[Any, Any]:
    """Make the pair: (public object, private object). Raises PKCS11Error."""
    templates: dict[str, Any] = {
        "public_template": public_template(algorithm, object_id, label),
        "private_template": private_template(algorithm, object_id, label),
        "mechanism": GENERATE[algorithm.family],
        "capabilities": MechanismFlag(0),
        "store": True,
    }
    if algorithm.family is Family.RSA:
        pair = session.generate_keypair(KeyType.RSA, algorithm.bits, **templates)
    else:
        parameters = {Attribute.EC_PARAMS: curve_parameters(algorithm, as_name=as_name)}
        domain = session.create_domain_parameters(KEY_TYPE[algorithm.family], parameters, local=True)
        pair = domain.generate_keypair(**templates)
    return pair[0], pair[1]


def algorithm_of(private: Any) -> KeyAlgorithm | None:
    """What kind of key a private object is; None where it is none that we know."""
    said = read(private, (Attribute.KEY_TYPE, Attribute.EC_PARAMS, Attribute.MODULUS))
    family = _FAMILY.get(said.get(Attribute.KEY_TYPE, -1))
    if family is Family.RSA:
        return _RSA.get(int.from_bytes(said.get(Attribute.MODULUS, b""), "big").bit_length())
    if family is None:
        return None
    algorithm = _CURVES.get(said.get(Attribute.EC_PARAMS, b""))
    return algorithm if algorithm is not None and algorithm.family is family else None


def facts_of(private: Any) -> DeviceFacts:
    """Evidence, as the device tells it now."""
    said = read(
        private,
        (
            Attribute.SENSITIVE,
            Attribute.EXTRACTABLE,
            Attribute.LOCAL,
            Attribute.ALWAYS_SENSITIVE,
            Attribute.NEVER_EXTRACTABLE,
            Attribute.UNIQUE_ID,
        ),
    )
    return DeviceFacts(
        sensitive=said.get(Attribute.SENSITIVE),
        extractable=said.get(Attribute.EXTRACTABLE),
        local=said.get(Attribute.LOCAL),
        always_sensitive=said.get(Attribute.ALWAYS_SENSITIVE),
        never_extractable=said.get(Attribute.NEVER_EXTRACTABLE),
        unique_id=said.get(Attribute.UNIQUE_ID, ""),
    )


def contradiction(facts: DeviceFacts) -> str:
    """Why a key that was just made is not what was asked for; empty where nothing speaks against it."""
    if facts.sensitive is False or facts.always_sensitive is False:
        return "it is not sensitive"
    if facts.extractable is True or facts.never_extractable is False:
        return "it is extractable"
    if facts.local is False:
        return "it was not made on the device"
    return ""


def spki_of(algorithm: KeyAlgorithm, sources: Iterable[Callable[[], Mapping[int, Any]]]) -> bytes | None:
    """The public key, SPKI DER, from the first of `sources` (attributes of the public object, a
    certificate, the private object) that tells a good one of `algorithm`; None where none does."""
    for source in sources:
        said = source()
        for build in (_from_info, _from_certificate, _from_numbers):
            try:
                spki = build(algorithm, said)
            except (ValueError, TypeError, UnsupportedAlgorithm):  # a point off its curve, a broken certificate
                continue
            if spki is not None:
                return spki
    return None


PUBLIC_ATTRIBUTES: tuple[int, ...] = (
    PUBLIC_KEY_INFO,
    Attribute.EC_POINT,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
)
CERTIFICATE_ATTRIBUTES: tuple[int, ...] = (Attribute.VALUE,)


def _from_info(algorithm: KeyAlgorithm, said: Mapping[int, Any]) -> bytes | None:
    info = said.get(PUBLIC_KEY_INFO)
    return _encode(algorithm, serialization.load_der_public_key(info)) if info else None


def _from_certificate(algorithm: KeyAlgorithm, said: Mapping[int, Any]) -> bytes | None:
    value = said.get(Attribute.VALUE)
    return _encode(algorithm, x509.load_der_x509_certificate(value).public_key()) if value else None


def _from_numbers(algorithm: KeyAlgorithm, said: Mapping[int, Any]) -> bytes | None:
    if algorithm.family is Family.RSA:
        modulus, exponent = said.get(Attribute.MODULUS), said.get(Attribute.PUBLIC_EXPONENT)
        if not modulus or not exponent:
            return None
        numbers = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
        return _encode(algorithm, numbers.public_key())
    encoded = said.get(Attribute.EC_POINT)
    if not encoded:
        return None
    size = 32 if algorithm is KeyAlgorithm.ED25519 else 1 + 2 * ((algorithm.bits + 7) // 8)
    point = _unwrap(encoded, size)
    if algorithm is KeyAlgorithm.ED25519:
        return _encode(algorithm, ed25519.Ed25519PublicKey.from_public_bytes(point))
    curve = _CRYPTOGRAPHY_CURVES[algorithm]
    return _encode(algorithm, ec.EllipticCurvePublicKey.from_encoded_point(curve, point))


def _unwrap(encoded: bytes, size: int) -> bytes:
    """CKA_EC_POINT: a DER OCTET STRING by the standard, the bare point with some modules, and with
    others a BIT STRING (PKCS #11 3.0 for Edwards curves, before its errata)."""
    if len(encoded) == size:
        return encoded
    for tag in (b"\x04", b"\x03"):
        inside = size if tag == b"\x04" else size + 1
        length = bytes([inside]) if inside < 0x80 else b"\x81" + bytes([inside])
        head = tag + length + (b"" if tag == b"\x04" else b"\x00")
        if encoded.startswith(head) and len(encoded) == len(head) + size:
            return encoded[len(head) :]
    raise ValueError("CKA_EC_POINT is neither the point nor the point in an OCTET STRING")


def _encode(algorithm: KeyAlgorithm, key: Any) -> bytes | None:
    """SPKI DER, where `key` is of this algorithm. Loading it has checked that the point is on the curve."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        fits = algorithm.family is Family.EC and key.curve.name == _CRYPTOGRAPHY_CURVES[algorithm].name
    elif isinstance(key, rsa.RSAPublicKey):
        fits = algorithm.family is Family.RSA and key.key_size == algorithm.bits
    else:
        fits = isinstance(key, ed25519.Ed25519PublicKey) and algorithm is KeyAlgorithm.ED25519
    if not fits:
        return None
    spki: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return spki


def locator(object_id: bytes, label: str = "") -> bytes:
    """The locator of a private object, as native/core/frame.h has it. Raises ValueError where it does not fit."""
    encoded = label.encode()
    if len(object_id) > LOCATOR_PART_MAX or len(encoded) > LOCATOR_PART_MAX or not (object_id or encoded):
        raise ValueError("a locator holds a CKA_ID, a CKA_LABEL or both, of at most 255 bytes each")
    return bytes([len(object_id)]) + object_id + bytes([len(encoded)]) + encoded


def read_locator(value: bytes) -> tuple[bytes, str]:
    """(CKA_ID, CKA_LABEL) of a locator. Raises ValueError where it is none."""
    if value:
        end = 1 + value[0]
        if len(value) > end and len(value) == end + 1 + value[end] and len(value) > 2:
            return value[1:end], value[end + 1 :].decode()
    raise ValueError("these bytes are no locator of a PKCS #11 object")
