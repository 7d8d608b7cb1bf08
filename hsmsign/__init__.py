"""hsmsign: sign with keys that live on a device, by their names, over gRPC."""
