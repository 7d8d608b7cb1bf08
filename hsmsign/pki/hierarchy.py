"""How authorities come to be: roots, authorities below others, those that an outside CA certifies, new versions.

A key is made where it is not there, with the purpose `ca` and the limits of the authority: it signs for this name and
within these limits only, whoever asks. Each step can be repeated: what is there already stays.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from hsmsign.keyring import Keyring, ResolvedKey
from hsmsign.model.algorithms import Family, Scheme
from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    AuthorityExistsError,
    AuthorityStateError,
    FailedPreconditionError,
    HsmsignError,
    InvalidArgumentError,
    KeyNotFoundError,
)
from hsmsign.model.purpose import Purpose, PurposeKind, subtree
from hsmsign.pki import chains
from hsmsign.pki.authority import Authority, Urls, Version
from hsmsign.pki.capturing import captured
from hsmsign.pki.certificates import assemble, ca_draft, to_be_signed
from hsmsign.pki.directory import Directory
from hsmsign.pki.drafting import Draft
from hsmsign.pki.issuing import Issuing
from hsmsign.pki.signer import Signer
from hsmsign.pki.weakness import PublicKey
from hsmsign.pki.wishes import Wish
from hsmsign.purposes import subtrees
from hsmsign.store import Store, authorities
from hsmsign.store.pki_rows import AuthorityRow, AuthorityState, AuthorityVersionRow

_log = structlog.get_logger(__name__)


class Hierarchy:
    """Makes and changes authorities. Rights were asked for before. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        directory: Directory,
        signer: Signer,
        issuing: Issuing,
        urls: Urls,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called after each change."""
        self._store = store
        self._keyring = keyring
        self._directory = directory
        self._signer = signer
        self._issuing = issuing
        self._urls = urls
        self._changed = changed

    async def create(self, caller: Caller, wish: Wish, *, validate_only: bool = False) -> Authority:
        """Make an authority. Repeated, it goes on where it stopped (its parent's key wanted approvals). Raises
        AuthorityExistsError for one that is otherwise, and what making and using keys raises."""
        AuthorityName(wish.id)
        if wish.shards > 1 and not self._urls.base:
            raise FailedPreconditionError(
                "CRLs that are split have addresses, and this daemon has none", hint="say url in ca.toml"
            )
        parent = await self._parent(wish)
        wish = await self._within(wish, parent)
        purpose = wish.purpose
        algorithm = wish.kind
        _draw(wish, ec.generate_private_key(ec.SECP256R1()).public_key())  # what cannot be said is found out now
        known = (await self._directory.everything()).get(wish.id)
        if known is not None and (len(known.versions) > 1 or known.versions[0].row.wanted != wish.plain()):
            raise AuthorityExistsError(
                f"cas/{wish.id} is there already", hint="choose another name, or rotate it: hsmsign ca rotate"
            )
        key = await self._find_key(wish, purpose)
        if validate_only:
            return known or _preview(wish, key)
        if key is None:
            made = await self._keyring.create(wish.key, algorithm, purpose=purpose, backend=wish.backend)
            key = await self._keyring.resolve(made.primary)
        await self._establish(caller, wish, key, 1, parent, primary=True)
        return await self._directory.authority(wish.id)

    async def parent_of(self, id: str) -> str:
        """The id of the authority that signs it; nothing where it signs itself, or an outside CA does."""
        return Wish.read((await self._directory.authority(id)).versions[-1].row.wanted).parent

    async def rotate(self, caller: Caller, id: str, validity: int, *, staged: bool) -> Authority:
        """Make a new version with a new version of the key, which issues from now on (unless it is `staged`)."""
        authority = await self._directory.authority(id)
        last = authority.versions[-1]
        wish = dataclasses.replace(Wish.read(last.row.wanted), validity=validity or last.row.wanted["validity"])
        parent = await self._parent(wish)
        number = last.row.number
        if last.row.state is not AuthorityState.PENDING:  # else: go on with what stopped half way
            number += 1
            made = await self._keyring.rotate(f"keys/{wish.key}")
            key = await self._keyring.resolve(made.primary)
        else:
            key = await self._keyring.resolve(last.row.key_version)
        await self._establish(caller, wish, key, number, parent, primary=not staged)
        return await self._directory.authority(id)

    async def import_chain(self, name: AuthorityName, pem: str) -> Authority:
        """Give a version the certificate that an outside CA made, with the chain above it; or one more for its key."""
        authority = await self._directory.authority(name.id)
        version = await self._directory.version(name)
        found = chains.read(pem, version.row.public_key, x509.Name(_subject(version)))
        primary = version.row.number if authority.row.primary_version is None else None

        def change(row: AuthorityVersionRow) -> AuthorityVersionRow:
            if row.state is not AuthorityState.PENDING:
                return _crossed(row, found[0])
            return _established(row, found[0].public_bytes(Encoding.DER), chains.pem(found[1:]))

        await self._change(version, change, primary)
        return await self._directory.authority(name.id)

    async def cross_sign(self, caller: Caller, name: AuthorityName, issuer: AuthorityName, validity: int) -> Authority:
        """Have the key of a version certified by (a version of) another authority, too."""
        version = await self._directory.version(name)
        signing = await self._directory.version(issuer)
        signing.must_issue()
        if signing.name == version.name:
            raise InvalidArgumentError(f"{version.name} cannot cross-sign itself", hint="name another issuer")
        if signing.path_length is not None and signing.path_length <= (version.path_length or 0):
            raise AuthorityStateError(
                f"{signing.name} has a path length of {signing.path_length}, and {version.name} one of"
                f" {version.path_length}: it could not stand below it",
                hint="a root that is to cross-sign others wants a --path-len greater than theirs",
            )
        wish = Wish.read(version.row.wanted)
        length = dt.timedelta(seconds=validity) if validity else version.certificate.not_valid_after_utc - _now()
        drawn = ca_draft(
            version.subject,
            version.public_key,
            now=_now(),
            validity=length,
            path_length=version.path_length,
            permitted=wish.permitted,
            excluded=wish.excluded,
            policies=wish.policies,
        )
        issued = await self._issuing.issue_own(caller, signing, drawn, "cross-sign")
        made = x509.load_der_x509_certificate(issued.row.content)
        await self._change(version, lambda row: _crossed(row, made))
        return await self._directory.authority(name.id)

    async def choose(self, id: str, primary: int | None, retire: int | None) -> Authority:
        """Let another version issue, or one issue nothing more."""
        authority = await self._directory.authority(id)
        if primary is not None:
            version = await self._directory.version(AuthorityName(id, primary))
            version.must_issue()
            await self._change(version, lambda row: row, primary)
        if retire is not None:
            version = await self._directory.version(AuthorityName(id, retire))
            if retire == (primary or authority.row.primary_version):
                raise AuthorityStateError(
                    f"{version.name} is the one that issues",
                    hint="let another issue first: hsmsign ca update --primary",
                )
            await self._change(version, lambda row: dataclasses.replace(row, state=AuthorityState.RETIRED))
        return await self._directory.authority(id)

    # ---- the steps ----

    async def _parent(self, wish: Wish) -> Version | None:
        if not wish.parent:
            return None
        version = await self._directory.version(AuthorityName(wish.parent))
        version.must_issue()
        if version.path_length is not None and wish.path_length >= version.path_length:
            raise InvalidArgumentError(
                f"{version.name} has a path length of {version.path_length}: one below it has less, not"
                f" {wish.path_length}",
                hint="make the parent with a greater --path-len, or this one with a smaller",
                metadata={"field": "path_length"},
            )
        return version

    async def _within(self, wish: Wish, parent: Version | None) -> Wish:
        """With the names that its parent may certify, where it says none itself. Raises InvalidArgumentError for more
        than those."""
        if parent is None:
            return wish
        above = (await self._keyring.resolve(parent.row.key_version)).purpose.permitted_names
        if not above:
            return wish
        trees = tuple(subtree(one) for one in above)
        wider = [one for one in wish.permitted if not subtrees.narrower(subtree(one), trees)]
        if wider:
            raise InvalidArgumentError(
                f"{parent.name} may certify names in {', '.join(above)} only, and {wider[0]} is outside",
                hint="permit names within those",
                metadata={"field": "permitted_names"},
            )
        return dataclasses.replace(wish, permitted=wish.permitted or above)

    async def _find_key(self, wish: Wish, purpose: Purpose) -> ResolvedKey | None:
        try:
            key = await self._keyring.resolve(f"keys/{wish.key}")
        except KeyNotFoundError:
            return None
        if key.purpose.kind is PurposeKind.ANY or key.purpose.kind is not PurposeKind.CA:
            raise FailedPreconditionError(
                f"keys/{wish.key} is for {key.purpose.kind.value!r}, and an authority wants a key that is for it alone",
                hint=f"hsmsign key update {wish.key} --purpose ca --issuer '{purpose.issuer}'; or name another --key",
            )
        if x509.Name.from_rfc4514_string(key.purpose.issuer) != wish.name:
            raise FailedPreconditionError(
                f"keys/{wish.key} signs as {key.purpose.issuer}, not as {purpose.issuer}",
                hint="name another --key, or that subject",
            )
        return key

    async def _establish(
        self, caller: Caller, wish: Wish, key: ResolvedKey, number: int, parent: Version | None, *, primary: bool
    ) -> None:
        """From a key to a version at work, in steps that can be repeated."""
        scheme = _scheme(key, pss=wish.pss)
        row = AuthorityVersionRow(
            wish.id,
            number,
            AuthorityState.PENDING,
            key.name,
            scheme.name,
            wish.name.public_bytes(),
            key.public_key,
            wish.plain(),
            time.time_ns() // 1000,
            shards=wish.shards,
        )
        row = await self._store.write(lambda connection: _enter(connection, row), crossed=8)
        self._directory.changed()
        if row.state is not AuthorityState.PENDING:
            return
        pending = Version(row)
        if wish.external:
            request = await self._request(caller, pending, wish)
            await self._change(pending, lambda row: dataclasses.replace(row, request=request))
            return
        certificate = await self._certify(caller, pending, wish, parent)
        chain = "" if parent is None else parent.pem() + parent.row.chain
        await self._change(pending, lambda row: _established(row, certificate, chain), number if primary else None)
        _log.info("an authority has a certificate", authority=pending.name, subject=wish.subject)

    async def _certify(self, caller: Caller, pending: Version, wish: Wish, parent: Version | None) -> bytes:
        if parent is not None:
            issued = await self._issuing.issue_own(caller, parent, _draw(wish, pending.public_key), "intermediate")
            return issued.row.content
        tbs = pending.row.request
        if tbs is None:
            drawn = _draw(wish, pending.public_key)
            tbs = to_be_signed(drawn, chains.itself(drawn, pending.scheme), x509.random_serial_number())
            # kept before it is signed: where others have to approve it, they approve these very bytes
            await self._change(pending, lambda row: dataclasses.replace(row, request=tbs))
        return assemble(tbs, pending.scheme, await self._signed(caller, pending, tbs))

    async def _request(self, caller: Caller, pending: Version, wish: Wish) -> bytes:
        info = captured(chains.request(wish.name, pending.scheme, wish.path_length), pending.public_key, pending.scheme)
        return assemble(info, pending.scheme, await self._signed(caller, pending, info))

    async def _signed(self, caller: Caller, version: Version, part: bytes) -> bytes:
        answer = (await self._signer.sign(caller, version, [part]))[0]
        if isinstance(answer, HsmsignError):
            raise answer
        return answer

    async def _change(
        self,
        version: Version,
        change: Callable[[AuthorityVersionRow], AuthorityVersionRow],
        primary: int | None = None,
    ) -> None:
        """Change a version as it is now, which may be another than it was read, and the authority's choice where there
        is one."""
        id, number = version.row.authority, version.row.number

        def work(connection: Connection) -> None:
            row = authorities.version(connection, id, number)
            authority = authorities.authority(connection, id)
            if row is None or authority is None:
                raise AuthorityStateError(f"{version.name} is gone")
            changed = change(row)
            authorities.save_version(connection, dataclasses.replace(changed, latest=max(row.latest, changed.latest)))
            chosen = authority.primary_version if primary is None else primary
            authorities.save(
                connection, dataclasses.replace(authority, primary_version=chosen, updated=time.time_ns() // 1000)
            )
            authorities.trust_changed(connection)

        await self._store.write(work, crossed=8)
        self._directory.changed()
        self._changed()


def _established(row: AuthorityVersionRow, certificate: bytes, chain: str) -> AuthorityVersionRow:
    """With its certificate."""
    return dataclasses.replace(
        row,
        state=AuthorityState.ACTIVE,
        certificate=certificate,
        chain=chain,
        request=None,
        latest=max(row.latest, int(time.time())),
    )


def _crossed(row: AuthorityVersionRow, made: x509.Certificate) -> AuthorityVersionRow:
    """With one more certificate for its key."""
    return dataclasses.replace(row, crosses=chains.pem(chains.united(Version(row).crosses, [made])))


def _enter(connection: Connection, row: AuthorityVersionRow) -> AuthorityVersionRow:
    """The row, or the one that is there. Raises AuthorityExistsError where the key has this name elsewhere."""
    before = authorities.version(connection, row.authority, row.number)
    if before is not None:
        return before
    other = authorities.holder(connection, row.public_key, row.subject)
    if other is not None:
        raise AuthorityExistsError(
            f"{row.key_version} is the key of cas/{other.authority}/versions/{other.number}, with the same name",
            hint="an authority wants a key, or a name, of its own: their CRLs could not be told apart",
        )
    if authorities.authority(connection, row.authority) is None:
        authorities.add(connection, AuthorityRow(row.authority, None, row.created, row.created))
    authorities.add_version(connection, row)
    return row


def _draw(wish: Wish, public_key: PublicKey) -> Draft:
    return ca_draft(
        wish.name,
        public_key,
        now=_now(),
        validity=wish.how_long,
        path_length=wish.path_length,
        permitted=wish.permitted,
        excluded=wish.excluded,
        policies=wish.policies,
    )


def _scheme(key: ResolvedKey, *, pss: bool) -> Scheme:
    """With what the authority signs. RSA keys have several."""
    if key.algorithm.family is not Family.RSA:
        return key.algorithm.schemes[0]
    return Scheme.RSA_PSS_SHA256 if pss else Scheme.RSA_PKCS1_SHA256


def _subject(version: Version) -> x509.Name:
    return Wish.read(version.row.wanted).name


def _preview(wish: Wish, key: ResolvedKey | None) -> Authority:
    """What a dry run shows."""
    scheme = _scheme(key, pss=wish.pss).name if key is not None else ""
    name, public = (key.name, key.public_key) if key is not None else (f"keys/{wish.key}/versions/1", b"")
    row = AuthorityVersionRow(
        wish.id, 1, AuthorityState.PENDING, name, scheme, wish.name.public_bytes(), public, wish.plain(), 0
    )
    return Authority(AuthorityRow(wish.id, None, 0, 0), (Version(row),))


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(int(time.time()), dt.UTC)
