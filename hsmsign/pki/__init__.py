"""The certificate authority: profiles, issuance, revocation, CRLs, OCSP, identity tokens. Its keys are key handles."""
