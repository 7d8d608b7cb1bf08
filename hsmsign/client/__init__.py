"""What a caller imports: connections, remote signers. Needs no server, no HSM library."""
