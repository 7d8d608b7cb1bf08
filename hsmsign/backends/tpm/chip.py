"""One TPM 2.0, through ESAPI: its storage key, its sessions, and the few keys that it has room for at a time.

Not for several threads at once. Raises TSS2_Exception as it comes; `hsmsign.backends.tpm.codes` says what helps.
"""

from __future__ import annotations

import contextlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_HC,
    TPM2_PT,
    TPM2_RH,
    TPM2_SE,
    TPM2_ST,
    TPM2_SU,
    TPM2B_AUTH,
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_SESSION,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_PUBLIC_PARMS,
    TPMT_TK_HASHCHECK,
    TSS2_Exception,
)

from hsmsign.backends.tpm import blobs, codes, shapes
from hsmsign.backends.tpm.blobs import PersistentKey, WrappedKey
from hsmsign.backends.tpm.codes import Remedy
from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.errors import KeyDamagedError, ObjectNotFoundError, ParentChangedError

_BOTH_WAYS = TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT
_INWARDS = TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT
# TPM_PT values that tpm2-pytss does not name, and a bit of TPM_PT_PERMANENT (Part 2, sections 6.13 and 8.6)
_VENDOR_STRING, _FIRMWARE_VERSION, _TRANSIENT_AVAIL, _IN_LOCKOUT = 0x106, 0x10B, 0x207, 0x200
_HASH_CHECK = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)


@dataclass(frozen=True, slots=True)
class Properties:
    """What the TPM says of itself (Part 2, section 6.13)."""

    manufacturer: str
    model: str
    firmware: str
    revision: str
    transient_slots: int
    lockout_counter: int
    lockout_limit: int
    in_lockout: bool


@dataclass(slots=True)
class _Loaded:
    handle: ESYS_TR
    pcrs: str
    public: TPMT_PUBLIC
    evictable: bool


class Chip:
    """A connection to a TPM, with a storage key and a salted session; gone with `close`, or with the TPM."""

    def __init__(
        self,
        tcti: str,
        *,
        storage_handle: int,
        owner_auth: Callable[[], str] | None,
        key_secret: bytes,
        plain_authorization: bool,
    ) -> None:
        self._key_secret = key_secret
        self._plain = plain_authorization
        self._loaded: OrderedDict[bytes, _Loaded] = OrderedDict()
        self._session: ESYS_TR | None = None
        self._policy_session: ESYS_TR | None = None
        self.esys = ESAPI(tcti)
        try:
            self._start_up()
            self._flush_leftovers()
            self.properties = self._read_properties()
            self._room = max(1, self.properties.transient_slots)
            self._parent, self._parent_is_ours = self._storage_key(storage_handle, owner_auth)
            self._room -= self._parent_is_ours
            self.parent_name = bytes(self.esys.tr_get_name(self._parent))
            self.algorithms = tuple(a for a in shapes.CANDIDATES if self._has(a))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything, as far as the TPM can still be reached."""
        with contextlib.suppress(TSS2_Exception, RuntimeError):
            self._let_go()
        with contextlib.suppress(TSS2_Exception, RuntimeError):
            self.esys.close()

    def _let_go(self) -> None:
        for key in self._loaded.values():
            if key.evictable:
                self.esys.flush_context(key.handle)
        for session in (self._session, self._policy_session):
            if session is not None:
                self.esys.flush_context(session)
        if getattr(self, "_parent_is_ours", False):
            self.esys.flush_context(self._parent)

    # -- opening ---------------------------------------------------------------------------------------

    def _start_up(self) -> None:
        try:
            self.esys.startup(TPM2_SU.CLEAR)
        except TSS2_Exception as error:
            if error.rc != codes.INITIALIZE:  # somebody did that before us
                raise

    def _flush_leftovers(self) -> None:
        """Objects and sessions that a killed predecessor left in a TPM without a resource manager, where they would
        take all the room there is. Behind a resource manager nobody sees what is not his own."""
        for first in (TPM2_HC.TRANSIENT_FIRST, TPM2_HC.HMAC_SESSION_FIRST, TPM2_HC.POLICY_SESSION_FIRST):
            _, data = self.esys.get_capability(TPM2_CAP.HANDLES, first, 32)
            for handle in [int(one) for one in data.data.handles]:
                if handle >> 24 == int(first) >> 24:
                    self.esys.flush_context(self.esys.tr_from_tpmpublic(handle))

    def _read_properties(self) -> Properties:
        said: dict[int, int] = {}
        for group in (TPM2_PT.FIXED, TPM2_PT.VAR):
            _, data = self.esys.get_capability(TPM2_CAP.TPM_PROPERTIES, group, 127)
            said.update({int(one.property): int(one.value) for one in data.data.tpmProperties})

        def text(*properties: int) -> str:
            raw = b"".join(said.get(one, 0).to_bytes(4, "big") for one in properties)
            return raw.replace(b"\0", b"").decode("ascii", "replace").strip()

        strings = range(_VENDOR_STRING, _VENDOR_STRING + 4)
        one, two = said.get(_FIRMWARE_VERSION, 0), said.get(_FIRMWARE_VERSION + 1, 0)
        revision = said.get(TPM2_PT.REVISION, 0)
        return Properties(
            manufacturer=text(TPM2_PT.MANUFACTURER),
            model=text(*strings),
            firmware=f"{one >> 16}.{one & 0xFFFF}.{two >> 16}.{two & 0xFFFF}",
            revision=f"2.0 rev {revision // 100}.{revision % 100:02}",
            transient_slots=said.get(_TRANSIENT_AVAIL, 3),
            lockout_counter=said.get(TPM2_PT.LOCKOUT_COUNTER, 0),
            lockout_limit=said.get(TPM2_PT.MAX_AUTH_FAIL, 0),
            in_lockout=bool(said.get(TPM2_PT.PERMANENT, 0) & _IN_LOCKOUT),
        )

    def look(self) -> Properties:
        """Read the properties anew: also the plainest way to see whether the TPM is there."""
        self.properties = self._read_properties()
        return self.properties

    def _has(self, algorithm: KeyAlgorithm) -> bool:
        try:
            self.esys.test_parms(_parameters(algorithm))
        except TSS2_Exception as error:
            if codes.remedy(error.rc) is Remedy.RECONNECT:
                raise
            return False
        return True

    def _storage_key(self, handle: int, owner_auth: Callable[[], str] | None) -> tuple[ESYS_TR, bool]:
        """The storage root key that is there, or one derived from the owner's seed."""
        more, data = self.esys.get_capability(TPM2_CAP.HANDLES, handle, 1)
        del more
        if handle in [int(one) for one in data.data.handles]:
            return self.esys.tr_from_tpmpublic(handle), False
        if owner_auth is not None:
            self.esys.tr_set_auth(ESYS_TR.OWNER, owner_auth().encode())
        made = self.esys.create_primary(TPM2B_SENSITIVE_CREATE(), shapes.storage_key(), ESYS_TR.OWNER)
        return made[0], True

    # -- sessions --------------------------------------------------------------------------------------

    def _salted(self, kind: TPM2_SE) -> ESYS_TR:
        """A session whose secret only this TPM's storage key can read (Part 1, section 19.6.8)."""
        return self.esys.start_auth_session(self._parent, ESYS_TR.NONE, kind, shapes.session_cipher(), TPM2_ALG.SHA256)

    def _hmac_session(self, attributes: TPMA_SESSION) -> ESYS_TR:
        if self._session is None:
            self._session = self._salted(TPM2_SE.HMAC)
        self.esys.trsess_set_attributes(self._session, attributes, 0xFF)
        return self._session

    def _policy(self, pcrs: str) -> ESYS_TR:
        """A session that says: these registers are as they were, and the key's authorization is known."""
        if self._policy_session is None:
            self._policy_session = self._salted(TPM2_SE.POLICY)
        session = self._policy_session
        self.esys.policy_restart(session)
        self.esys.trsess_set_attributes(session, _INWARDS, 0xFF)
        self.esys.policy_pcr(session, TPM2B_DIGEST(), shapes.pcr_selection(pcrs))
        self.esys.policy_auth_value(session)
        return session

    def refresh(self) -> None:
        """Forget sessions and loaded keys: a resource manager, or a reset, may have taken them."""
        with contextlib.suppress(TSS2_Exception, RuntimeError):
            for session in (self._session, self._policy_session):
                if session is not None:
                    self.esys.flush_context(session)
        self._session = self._policy_session = None
        for locator in list(self._loaded):
            self.forget(locator)

    # -- keys ------------------------------------------------------------------------------------------

    def generate(self, algorithm: KeyAlgorithm, auth_id: bytes, pcrs: str) -> tuple[bytes, TPMT_PUBLIC]:
        """A new key: its locator, which is all there is of it, and its public area."""
        template = shapes.signing_key(algorithm, self._policy_digest(pcrs) if pcrs else b"")
        sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=TPM2B_AUTH(self._auth(auth_id))))
        made = self.esys.create(self._parent, sensitive, template, session1=self._hmac_session(_BOTH_WAYS))
        private, public = made[0], made[1]
        key = WrappedKey(self.parent_name, auth_id, pcrs, public.marshal(), private.marshal())
        return blobs.encode(key), public.publicArea

    def _policy_digest(self, pcrs: str) -> bytes:
        trial = self._salted(TPM2_SE.TRIAL)
        try:
            self.esys.policy_pcr(trial, TPM2B_DIGEST(), shapes.pcr_selection(pcrs))
            self.esys.policy_auth_value(trial)
            return bytes(self.esys.policy_get_digest(trial))
        finally:
            self.esys.flush_context(trial)

    def _auth(self, auth_id: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, None, b"hsmsign tpm2 key authorization\0" + auth_id).derive(self._key_secret)

    def sign(self, locator: bytes, scheme: Scheme, digest: bytes) -> bytes:
        """Sign a digest: r || s, or an RSA signature.

        Raises KeyDamagedError, ParentChangedError, ObjectNotFoundError.
        """
        key = self._load(locator)
        if key.pcrs:
            session = self._policy(key.pcrs)
        elif self._plain:
            session = ESYS_TR.PASSWORD
        else:
            session = self._hmac_session(_INWARDS)
        signed = self.esys.sign(
            key.handle, TPM2B_DIGEST(digest), shapes.signature_scheme(scheme), _HASH_CHECK, session1=session
        )
        return shapes.raw_signature(signed, scheme)

    def public(self, locator: bytes) -> tuple[TPMT_PUBLIC, str]:
        """The public area of a key, and the registers that it is bound to; the TPM takes the key, or this raises."""
        key = self._load(locator)
        return key.public, key.pcrs

    def for_admin(self, locator: bytes) -> tuple[ESYS_TR, TPMT_PUBLIC, ESYS_TR]:
        """A key's handle and public area, and a session that authorizes what is asked of the key but signatures."""
        key = self._load(locator)
        return key.handle, key.public, self._hmac_session(TPMA_SESSION.CONTINUESESSION)

    def persistent(self, handle: int) -> tuple[bytes, TPMT_PUBLIC]:
        """A key that is in the TPM already: its locator and its public area. Raises ObjectNotFoundError."""
        found = self._at(handle)
        try:
            public, name, _ = self.esys.read_public(found)
        finally:
            self.esys.tr_close(found)
        return blobs.encode(PersistentKey(handle, bytes(name))), public.publicArea

    def _at(self, handle: int) -> ESYS_TR:
        try:
            return self.esys.tr_from_tpmpublic(handle)
        except TSS2_Exception as error:
            if codes.remedy(error.rc) is Remedy.FRESH:
                raise ObjectNotFoundError(
                    f"the TPM has nothing at the persistent handle 0x{handle:08x}",
                    hint="see what there is: tpm2_getcap handles-persistent",
                ) from error
            raise

    def evict(self, handle: int, owner_auth: Callable[[], str] | None) -> None:
        """Take a persistent key out of the TPM for good (TPM2_EvictControl)."""
        found = self._at(handle)
        if owner_auth is not None:
            self.esys.tr_set_auth(ESYS_TR.OWNER, owner_auth().encode())
        self.esys.evict_control(ESYS_TR.OWNER, found, 0, session1=ESYS_TR.PASSWORD)

    def forget(self, locator: bytes) -> None:
        """Flush a key, if it is loaded."""
        key = self._loaded.pop(locator, None)
        if key is not None:
            with contextlib.suppress(TSS2_Exception, RuntimeError):
                if key.evictable:
                    self.esys.flush_context(key.handle)
                else:
                    self.esys.tr_close(key.handle)

    def make_room(self) -> bool:
        """Flush the key that was used longest ago. False where none is loaded."""
        oldest = next((locator for locator, key in self._loaded.items() if key.evictable), None)
        if oldest is not None:
            self.forget(oldest)
        return oldest is not None

    def _load(self, locator: bytes) -> _Loaded:
        known = self._loaded.get(locator)
        if known is not None:
            self._loaded.move_to_end(locator)
            return known
        if not blobs.is_ours(locator):
            raise ObjectNotFoundError("the locator is none of a TPM")
        key = blobs.decode(locator)
        loaded = self._load_persistent(key) if isinstance(key, PersistentKey) else self._load_wrapped(key)
        self._loaded[locator] = loaded
        return loaded

    def _load_persistent(self, key: PersistentKey) -> _Loaded:
        handle = self._at(key.handle)
        public, name, _ = self.esys.read_public(handle)
        if not hmac.compare_digest(bytes(name), key.name):
            self.esys.tr_close(handle)
            raise ObjectNotFoundError(
                f"the TPM has another key at the persistent handle 0x{key.handle:08x} than the one that was adopted"
            )
        return _Loaded(handle, "", public.publicArea, evictable=False)

    def _load_wrapped(self, key: WrappedKey) -> _Loaded:
        if key.parent != self.parent_name:
            raise ParentChangedError(
                "the key was made under another storage key than this TPM has now",
                hint="it is another TPM, or it was cleared: such a key cannot come back; make a new one",
            )
        while sum(one.evictable for one in self._loaded.values()) >= self._room and self.make_room():
            pass
        try:
            private, _ = TPM2B_PRIVATE.unmarshal(key.private)
            public, _ = TPM2B_PUBLIC.unmarshal(key.public)
        except TSS2_Exception as error:
            raise KeyDamagedError("what the store keeps of this TPM key cannot be read") from error
        # nothing in the clear crosses here: the private area is encrypted for the storage key, and sealed by it
        session = ESYS_TR.PASSWORD if self._plain else self._hmac_session(_BOTH_WAYS)
        handle = self.esys.load(self._parent, private, public, session1=session)
        self.esys.tr_set_auth(handle, self._auth(key.auth_id))
        return _Loaded(handle, key.pcrs, public.publicArea, evictable=True)


def _parameters(algorithm: KeyAlgorithm) -> TPMT_PUBLIC_PARMS:
    area = shapes.signing_key(algorithm, b"").publicArea
    return TPMT_PUBLIC_PARMS(type=area.type, parameters=area.parameters)
