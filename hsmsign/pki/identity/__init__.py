"""Identity tokens: the JWT of a platform (a cloud, a cluster, a CI) that vouches for whoever asks for a certificate.

`reading` makes `issuers` from the configuration; `verifying` has `tokens` read, takes an issuer's keys from `jwks`
and has `templates` make the names that the token vouches for. Where to begin: `verifying.Identities`.
"""
