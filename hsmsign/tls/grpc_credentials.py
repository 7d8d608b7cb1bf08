"""Device keys for gRPC: `channel_credentials` makes what `grpc.secure_channel` and `grpc.aio.secure_channel` take."""

from __future__ import annotations

from hsmsign.client.device_tls import HANDSHAKE_OPTIONS, channel_credentials

__all__ = ["HANDSHAKE_OPTIONS", "channel_credentials"]
