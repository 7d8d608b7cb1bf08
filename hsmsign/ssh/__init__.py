"""Device keys for OpenSSH: its agent protocol, for signing alone."""
