"""The key pairs on a token, through one session: make, find, destroy. Raises PKCS11Error as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error

from hsmsign.backends import objects
from hsmsign.backends.base import ObjectQuery
from hsmsign.backends.uri import Pkcs11Uri
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceKey
from hsmsign.model.errors import DeviceError, ObjectAmbiguousError


class KeyCabinet:
    """The objects of one token, seen through a session that is logged in. Does not own the session."""

    def __init__(self, session: Any, token: Pkcs11Uri, *, curve_as_name: bool) -> None:
        self._session = session
        self._token = token
        self._curve_as_name = curve_as_name

    def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str) -> DeviceKey:
        """Make a pair, or answer with the one that an earlier try of the same call has made.

        Half a pair that such a try left is taken away first. Leaves nothing behind when it fails.
        """
        there = self._left_behind(algorithm, object_id, label)
        if there is not None:
            return there
        try:
            _, private = objects.generate(self._session, algorithm, object_id, label, as_name=self._curve_as_name)
            key = self._key(private, objects.locator(object_id))
            wrong = objects.contradiction(key.facts) if key is not None else "its public key cannot be read"
        except BaseException:
            self._clear(object_id, label)
            raise
        if key is None or wrong:
            self._clear(object_id, label)
            raise DeviceError(
                f"the device made a key that is not what was asked for: {wrong}; it was destroyed again",
                hint="this device or its configuration does not protect private keys; use another",
            )
        return key

    def find(self, query: ObjectQuery) -> list[DeviceKey]:
        """The key pairs that fit, of algorithms that we know and with a public key that can be told."""
        wanted_id, wanted_label = query.id, query.label
        if query.locator is not None:
            wanted_id, wanted_label = _parts(query.locator)
        found, seen = [], set()
        for private in self._search(ObjectClass.PRIVATE_KEY, wanted_id, wanted_label):
            object_id, label = _names(private)
            if not object_id and not label:
                continue  # nothing to call it by
            if (object_id, label) in seen:
                raise ObjectAmbiguousError(
                    f"several private keys on the token have the CKA_ID {object_id.hex() or '(none)'} and the label"
                    f" {label!r}: they cannot be told apart",
                    hint="give one of them another id or label with the vendor's tool",
                )
            seen.add((object_id, label))
            alone = object_id and wanted_label is None and len(self._privates(object_id)) == 1
            locator = query.locator or objects.locator(object_id, "" if alone else label)
            key = self._key(private, locator)
            if key is not None:
                found.append(key)
        return found

    def destroy(self, locator: bytes) -> bool:
        """Destroy both halves. False where there was nothing."""
        wanted_id, wanted_label = _parts(locator)
        privates = self._search(ObjectClass.PRIVATE_KEY, wanted_id, wanted_label)
        if len(privates) > 1:
            raise ObjectAmbiguousError(
                f"{len(privates)} private keys on the token have this id and label; none was destroyed",
                hint="destroy the right one with the vendor's tool",
            )
        publics = self._search(ObjectClass.PUBLIC_KEY, wanted_id, wanted_label)
        for thing in [*privates, *publics]:
            thing.destroy()
        return bool(privates or publics)

    def _left_behind(self, algorithm: KeyAlgorithm, object_id: bytes, label: str) -> DeviceKey | None:
        privates = self._privates(object_id)
        publics = self._search(ObjectClass.PUBLIC_KEY, object_id, None)
        if not privates and not publics:
            return None
        foreign = [thing for thing in [*privates, *publics] if _names(thing)[1] != label]
        if foreign or len(privates) > 1:
            raise ObjectAmbiguousError(
                "the token has an object with this CKA_ID already, which is not of this key", hint="take another id"
            )
        if privates and publics:
            key = self._key(privates[0], objects.locator(object_id))
            if key is not None and key.algorithm is algorithm and not objects.contradiction(key.facts):
                return key
        self._clear(object_id, label)
        return None

    def _clear(self, object_id: bytes, label: str) -> None:
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            try:
                for thing in self._search(kind, object_id, label):
                    thing.destroy()
            except PKCS11Error:
                continue  # the session may be gone: the next try of the same call takes away what is left

    def _key(self, private: Any, locator: bytes) -> DeviceKey | None:
        algorithm = objects.algorithm_of(private)
        if algorithm is None:
            return None
        object_id, label = _names(private)
        spki = objects.spki_of(algorithm, self._public_sources(private, object_id, label))
        if spki is None:
            return None
        uri = Pkcs11Uri(
            token=self._token.token,
            serial=self._token.serial,
            manufacturer=self._token.manufacturer,
            model=self._token.model,
            object=label or None,
            type="private",
            id=object_id or None,
        )
        return DeviceKey(locator, algorithm, spki, objects.facts_of(private), str(uri))

    def _public_sources(self, private: Any, object_id: bytes, label: str) -> list[Callable[[], dict[int, Any]]]:
        """Where the public key may be told: the private object itself is right beyond doubt, then the
        public object of the same name, then a certificate."""

        def public() -> dict[int, Any]:
            return self._beside(ObjectClass.PUBLIC_KEY, object_id, label, objects.PUBLIC_ATTRIBUTES)

        def certificate() -> dict[int, Any]:
            return self._beside(ObjectClass.CERTIFICATE, object_id, label, objects.CERTIFICATE_ATTRIBUTES)

        def itself() -> dict[int, Any]:
            # not CKA_EC_POINT, which is no attribute of a private key: some modules answer nonsense
            own = (objects.PUBLIC_KEY_INFO, Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
            return objects.read(private, own)

        return [itself, public, certificate]

    def _beside(self, kind: ObjectClass, object_id: bytes, label: str, wanted: tuple[int, ...]) -> dict[int, Any]:
        found = self._search(kind, object_id or None, None if object_id else label)
        if len(found) > 1:
            found = [thing for thing in found if _names(thing)[1] == label]
        return objects.read(found[0], wanted) if len(found) == 1 else {}

    def _privates(self, object_id: bytes) -> list[Any]:
        return self._search(ObjectClass.PRIVATE_KEY, object_id, None)

    def _search(self, kind: ObjectClass, object_id: bytes | None, label: str | None) -> list[Any]:
        template: dict[Attribute, Any] = {Attribute.CLASS: kind, Attribute.TOKEN: True}
        if object_id is not None:
            template[Attribute.ID] = object_id
        if label is not None:
            template[Attribute.LABEL] = label
        return list(self._session.get_objects(template))


def _parts(locator: bytes) -> tuple[bytes | None, str | None]:
    object_id, label = objects.read_locator(locator)
    return object_id or None, label or None


def _names(thing: Any) -> tuple[bytes, str]:
    said = objects.read(thing, (Attribute.ID, Attribute.LABEL))
    return said.get(Attribute.ID, b""), said.get(Attribute.LABEL, "")
