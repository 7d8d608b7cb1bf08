"""Device keys under the TLS stacks that people have."""
