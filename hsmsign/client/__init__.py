"""What a caller imports: connections, remote signers. Needs no server, no HSM library."""

from __future__ import annotations

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
    "BackendInfo",
    "Client",
    "Endpoint",
    "Health",
    "KeyInfo",
    "LogCheckpoint",
    "PublicKeyInfo",
    "RemoteEd25519PrivateKey",
    "RemoteEllipticCurvePrivateKey",
    "RemoteRSAPrivateKey",
    "RemoteSigner",
    "ReplicaInfo",
    "Signature",
    "SignedBatch",
    "TlsFiles",
    "Verdict",
    "VersionInfo",
    "VersionState",
    "connect",
]
