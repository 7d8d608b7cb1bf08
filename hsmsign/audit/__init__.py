"""The audit log: what was decided and signed, in an append-only Merkle log that others can check."""
