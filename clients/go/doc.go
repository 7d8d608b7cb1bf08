// Package hsmsign signs with keys that a hsmsign daemon keeps on HSMs, TPMs or SoftHSM. A private key never leaves its
// device; what a program gets is a [crypto.Signer] that asks the daemon.
//
// A [Signer] is a [crypto.MessageSigner], too: it sends the message where the caller has one, and only then can the
// daemon see what is signed. Keys with a purpose (tls-server, tls-client, ca, csr, ...) sign nothing else, and callers
// with the right to sign, but not to have any digest signed, can do nothing else.
//
// Go passes messages from version 1.25 on, and this module wants 1.26 (as its grpc does):
//
//   - crypto/tls: TLS 1.3 (CertificateVerify of servers and clients) and TLS 1.2 (ServerKeyExchange, CertificateVerify).
//     TLS 1.0 and 1.1 sign digests of MD5 and SHA-1, which no key here does.
//   - crypto/x509: CreateCertificate, CreateCertificateRequest and CreateRevocationList.
//   - what calls crypto.SignMessage itself. Code that calls Sign with a digest works with keys for any purpose only.
//
// A curve has one hash (P-256: SHA-256, P-384: SHA-384, P-521: SHA-512). In TLS 1.2 Go may take another one that the
// peer offers: [Signer.TLSCertificate] makes a tls.Certificate that says what the key can do.
package hsmsign
