"""gRPC channels: credentials, limits, keep-alive, retries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc

from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.client.device_tls import HANDSHAKE_OPTIONS
from hsmsign.client.own_key import OwnKey
from hsmsign.model.errors import ConfigurationError

MAX_MESSAGE_BYTES = 32 << 20

# Repeating a signature is harmless; creating and rotating carry a request id. Update and Destroy are for
# the caller to repeat, who knows what was meant.
_RETRIED = {
    "KeyService": ("CreateKey", "GetKey", "ListKeys", "RotateKey", "GetPublicKey", "AddReplica"),
    "SigningService": ("Sign", "SignBatch", "Verify"),
    "BackendService": ("ListBackends",),
    "CertificateAuthorityService": (
        "GetAuthority",
        "ListAuthorities",
        "ListProfiles",
        "IssueCertificate",
        "BatchIssueCertificates",
        "RevokeCertificate",
        "GetCertificate",
        "ListCertificates",
        "GetOcspResponse",
        "GetTrustBundle",
    ),
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": f"hsmsign.v1.{service}", "method": method}
                for service, methods in _RETRIED.items()
                for method in methods
            ],
            # about three seconds: a daemon that restarts is a delay, one that is not there an error
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1.5s",
                "backoffMultiplier": 3,
                # CANCELLED: a gRPC server that stops says this to calls that reach it in the last moment; a
                # call that the caller itself cancelled is over and not repeated
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}


def options(endpoint: Endpoint, own_key: OwnKey | None = None) -> list[tuple[str, Any]]:
    """Channel arguments, the same for both kinds of client."""
    chosen: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.primary_user_agent", "hsmsign-python"),
        # a connection of one's own: clients with the same settings must not share one, and with it a fate
        ("grpc.use_local_subchannel_pool", 1),
        # http_proxy in the environment is about the web, not about a signing daemon (often on localhost)
        ("grpc.enable_http_proxy", 0),
    ]
    if endpoint.socket_path is not None:
        chosen.append(("grpc.default_authority", "localhost"))
    elif endpoint.tls is not None and endpoint.tls.server_name:
        chosen.append(("grpc.ssl_target_name_override", endpoint.tls.server_name))
    if own_key is not None:
        chosen = [one for one in chosen if one[0] not in dict(HANDSHAKE_OPTIONS)] + list(HANDSHAKE_OPTIONS)
    return chosen


def credentials(tls: TlsFiles, own_key: OwnKey | None = None) -> grpc.ChannelCredentials:
    """What proves us, and what the daemon is checked against. Raises ConfigurationError."""
    ca, certificate = _read(tls.ca, "CA"), _read(tls.certificate, "certificate")
    if own_key is not None:
        return own_key.credentials(ca, certificate)
    return grpc.ssl_channel_credentials(ca, _read(tls.key, "key"), certificate)


def _read(path: Path | str, what: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the client's {what} file {path}: {error.strerror}",
            hint="it is named in client.toml, or in TlsFiles(...)",
        ) from error
    if b"-----BEGIN " not in content:
        raise ConfigurationError(f"the client's {what} file {path} is not PEM", hint="it must hold a -----BEGIN line")
    return content


def open_channel(endpoint: Endpoint, own_key: OwnKey | None = None) -> grpc.Channel:
    """A channel for the blocking client. Connects at the first call."""
    if endpoint.socket_path is not None or endpoint.tls is None:
        return grpc.insecure_channel(endpoint.target, options=options(endpoint))
    proof = credentials(endpoint.tls, own_key)
    return grpc.secure_channel(endpoint.target, proof, options=options(endpoint, own_key))


def open_aio_channel(endpoint: Endpoint, own_key: OwnKey | None = None) -> grpc.aio.Channel:
    """A channel for the asyncio client. Connects at the first call."""
    if endpoint.socket_path is not None or endpoint.tls is None:
        return grpc.aio.insecure_channel(endpoint.target, options=options(endpoint))
    proof = credentials(endpoint.tls, own_key)
    return grpc.aio.secure_channel(endpoint.target, proof, options=options(endpoint, own_key))
