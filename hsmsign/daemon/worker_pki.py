"""Puts the certificate authority together, where one is configured."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from hsmsign.audit.auditing import Audit
from hsmsign.keyring import Keyring
from hsmsign.ledger import Ledger
from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.caller import Caller
from hsmsign.model.limits import Limits
from hsmsign.model.tls import TlsPaths
from hsmsign.pki.authority import Urls
from hsmsign.pki.catalogue import Catalogue
from hsmsign.pki.crl_writing import CrlWriter
from hsmsign.pki.directory import Directory
from hsmsign.pki.hierarchy import Hierarchy
from hsmsign.pki.identity.verifying import Identities
from hsmsign.pki.issuing import Issuing
from hsmsign.pki.office import Office
from hsmsign.pki.publishing import Publisher
from hsmsign.pki.queue import IssueQueue
from hsmsign.pki.responders import Responders
from hsmsign.pki.responding import Responding
from hsmsign.pki.revoking import Revoking
from hsmsign.pki.settings import PkiConfig
from hsmsign.pki.signer import Signer
from hsmsign.pki.trust import Trust
from hsmsign.policy import Action, Policy
from hsmsign.server.authority_rights import AuthorityRights
from hsmsign.server.rights import Rights
from hsmsign.signing import SigningPipeline
from hsmsign.store import Store
from hsmsign.store.pki_rows import CertificateRow

if TYPE_CHECKING:
    from hsmsign.web.server import WebServer


def open_office(
    config: PkiConfig, store: Store, keyring: Keyring, pipeline: SigningPipeline, limits: Limits, ledger: Ledger
) -> Office:
    """Everything that the authority is made of, and nothing begun yet."""
    urls = Urls(config.url)
    directory = Directory(store, ledger)
    catalogue = Catalogue(config.profiles)
    signer = Signer(pipeline, limits)
    queue = IssueQueue(store, signer)
    issuing = Issuing(directory, catalogue, Identities(config.identity), queue, urls)
    writer = CrlWriter(store, signer, urls)
    publisher = Publisher(store, directory, writer, config.crl)
    responders = Responders(store, keyring, directory, issuing, catalogue, config.ocsp)
    responding = Responding(store, directory, responders, signer, config.ocsp)

    def revoked(row: CertificateRow) -> None:
        publisher.wake()
        responding.revoked(row)

    return Office(
        store,
        urls,
        directory,
        catalogue,
        queue,
        issuing,
        Hierarchy(store, keyring, directory, signer, issuing, urls, publisher.wake),
        Revoking(store, revoked),
        writer,
        publisher,
        responding,
        Trust(store, directory),
    )


def open_enrolling(
    sock: socket.socket,
    office: Office,
    audit: Audit,
    policy: Policy,
    keyring: Keyring,
    tls: TlsPaths,
    workers: int,
) -> WebServer:
    """The HTTPS port for who has a token. Each of the workers gets its part of the connections."""
    from hsmsign.web import enrolling  # not small, and not everybody wants a port for it
    from hsmsign.web.server import WebServer

    rights = AuthorityRights(office.directory, keyring, Rights(policy, keyring))

    async def may(caller: Caller, id: str) -> None:
        await rights.require(caller, Action.ISSUE, AuthorityName(id))

    return WebServer(sock, enrolling.enrolling(office, audit, may), max(1, enrolling.CONNECTIONS // workers), tls)


def open_relying(sock: socket.socket, office: Office, workers: int) -> WebServer:
    """The HTTP port for relying parties. Each of the workers gets its part of the connections."""
    from hsmsign.web import relying  # likewise
    from hsmsign.web.server import WebServer

    return WebServer(sock, relying.relying(office), relying.CONNECTIONS // workers)
