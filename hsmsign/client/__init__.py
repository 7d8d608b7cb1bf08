"""What a caller imports: connections, remote signers. Needs no server, no HSM library."""

from __future__ import annotations

from hsmsign.client.authorities import AsyncAuthorities, Authorities
from hsmsign.client.ca_values import (
    AuthorityInfo,
    AuthorityState,
    AuthorityVersionInfo,
    CertificateInfo,
    CertificateState,
    CrlInfo,
    ProfileInfo,
    TrustBundle,
)
from hsmsign.client.client import Client, connect
from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.client.remote import (
    RemoteEd25519PrivateKey,
    RemoteEllipticCurvePrivateKey,
    RemoteRSAPrivateKey,
    RemoteSigner,
)
from hsmsign.client.values import (
    AdoptedObject,
    ApprovalDecision,
    ApprovalInfo,
    BackendInfo,
    Health,
    KeyInfo,
    LogCheckpoint,
    PublicKeyInfo,
    ReplicaInfo,
    Signature,
    SignedBatch,
    Verdict,
    VersionInfo,
    VersionState,
)

__all__ = [
    "AdoptedObject",
    "ApprovalDecision",
    "ApprovalInfo",
    "AsyncAuthorities",
    "Authorities",
    "AuthorityInfo",
    "AuthorityState",
    "AuthorityVersionInfo",
    "BackendInfo",
    "CertificateInfo",
    "CertificateState",
    "Client",
    "CrlInfo",
    "Endpoint",
    "Health",
    "KeyInfo",
    "LogCheckpoint",
    "ProfileInfo",
    "PublicKeyInfo",
    "RemoteEd25519PrivateKey",
    "RemoteEllipticCurvePrivateKey",
    "RemoteRSAPrivateKey",
    "RemoteSigner",
    "ReplicaInfo",
    "Signature",
    "SignedBatch",
    "TlsFiles",
    "TrustBundle",
    "Verdict",
    "VersionInfo",
    "VersionState",
    "connect",
]
