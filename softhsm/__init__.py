"""SoftHSM: its configuration template and the provisioning of a token."""
