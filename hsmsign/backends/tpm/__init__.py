"""TPM 2.0 as a device: through tpm2-pytss (ESAPI), one command at a time."""
