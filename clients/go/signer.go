package hsmsign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"hsmsign.dev/go/internal/hsmsignv1"
)

// messages up to this size (what a daemon takes) travel as they are, so that it can see what a key signs; of larger
// ones the digest does
const messageMax = 1 << 20

// Signer is a key on a device, pinned to one version: the one that was named, or the primary one when it was made, so
// that Public and signatures fit for as long as it lives. After a rotation ask for another. It may be used from many
// goroutines; signatures that are wanted at the same time travel together.
type Signer struct {
	client  *Client
	version string
	public  crypto.PublicKey
	verify  bool
}

var _ crypto.MessageSigner = (*Signer)(nil)

type signerSettings struct {
	version uint32
	verify  bool
}

// SignerOption is a setting of a signer.
type SignerOption func(*signerSettings)

// WithVersion pins the signer to a version of the key, the first is 1; without it it is the primary one.
func WithVersion(number uint32) SignerOption {
	return func(s *signerSettings) { s.version = number }
}

// WithVerification has every signature checked with the public key before it is given out. crypto/x509 does so itself.
func WithVerification() SignerOption {
	return func(s *signerSettings) { s.verify = true }
}

// Signer asks for the public key of a key (keys/web-1, or web-1) or of a version (keys/web-1/versions/2). ctx is for
// this call only.
func (c *Client) Signer(ctx context.Context, name string, options ...SignerOption) (*Signer, error) {
	var chosen signerSettings
	for _, option := range options {
		option(&chosen)
	}
	if !strings.HasPrefix(name, "keys/") {
		name = "keys/" + name
	}
	if chosen.version != 0 {
		if strings.Contains(name, "/versions/") {
			return nil, misconfigured("say one of them", "%s names a version, and so does WithVersion", name)
		}
		name = fmt.Sprintf("%s/versions/%d", name, chosen.version)
	}
	ctx, cancel := context.WithTimeout(ctx, c.deadline)
	defer cancel()
	answer, err := c.keys.GetPublicKey(ctx, &hsmsignv1.GetPublicKeyRequest{Name: name})
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if !belongs(answer.GetName(), name) {
		return nil, unexpected("%s was asked for, and the daemon answered %q", name, answer.GetName())
	}
	public, err := x509.ParsePKIXPublicKey(answer.GetDer())
	if err != nil {
		return nil, unexpected("the public key of %s cannot be read: %v", answer.GetName(), err)
	}
	return &Signer{client: c, version: answer.GetName(), public: public, verify: chosen.verify}, nil
}

// KeyVersion is the version that signs: keys/ID/versions/N.
func (s *Signer) KeyVersion() string { return s.version }

// Public is the public key; no call is made.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign signs a digest (of Ed25519: a message) as crypto.Signer has it: ECDSA in DER, RSA PKCS #1 v1.5, or PSS with
// *rsa.PSSOptions. rand is not used: the device has its own. The deadline is the client's.
func (s *Signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignContext(context.Background(), digest, opts)
}

// SignMessage signs a message, which the daemon hashes, as crypto.MessageSigner has it. Of messages above 1 MiB the
// digest travels, which keys with a purpose do not sign.
func (s *Signer) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignMessageContext(context.Background(), message, opts)
}

// SignContext is Sign for a caller who may go, or has less time.
func (s *Signer) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.one(ctx, digest, opts, false)
}

// SignMessageContext is SignMessage for a caller who may go, or has less time.
func (s *Signer) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.one(ctx, message, opts, true)
}

func (s *Signer) one(ctx context.Context, input []byte, opts crypto.SignerOpts, isMessage bool) ([]byte, error) {
	how, err := schemeFor(s.public, opts)
	if err != nil {
		return nil, err
	}
	kind, input, err := s.prepare(how, input, isMessage)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.client.deadline)
	defer cancel()
	// the caller may go before the input has, and do with it what they like
	result, err := s.client.coalesce.sign(ctx, kind, append([]byte(nil), input...))
	if err == nil && result.Err != nil {
		err = ctx.Err() // both at the same time: what the caller did comes first
	}
	if err != nil {
		return nil, fromContext(err, s.client.target)
	}
	s.check(how, kind, input, &result)
	return result.Signature, result.Err
}

// prepare says what is sent for an input.
func (s *Signer) prepare(how scheme, input []byte, isMessage bool) (kindOf, []byte, error) {
	kind := kindOf{s.version, how.number, hsmsignv1.SignGroup_MESSAGE}
	if how.hash == 0 {
		return kind, input, nil
	}
	if isMessage && len(input) > 0 && len(input) <= messageMax {
		return kind, input, nil
	}
	if isMessage {
		input = how.digest(input)
	}
	kind.kind = hsmsignv1.SignGroup_DIGEST
	return kind, input, how.checkDigest(input)
}

// check verifies the signature where the signer was made so.
func (s *Signer) check(how scheme, kind kindOf, input []byte, result *Result) {
	if !s.verify || result.Err != nil {
		return
	}
	if !how.verify(s.public, input, result.Signature, kind.kind == hsmsignv1.SignGroup_MESSAGE) {
		*result = Result{KeyVersion: result.KeyVersion, Err: &Error{
			Code: codes.DataLoss, Reason: ErrSignatureCorrupted.Reason,
			Message: fmt.Sprintf("a signature of %s does not verify with its public key", s.version),
			Hint:    "sign again; if it comes back, look at the device",
		}}
	}
}

// TLSCertificate is a certificate for crypto/tls with this key: the chain in DER, the key's own certificate first. It
// says what the key can sign, which keeps TLS 1.2 from choosing another hash than the curve's.
func (s *Signer) TLSCertificate(chain ...[]byte) tls.Certificate {
	return tls.Certificate{Certificate: chain, PrivateKey: s, SupportedSignatureAlgorithms: s.tlsSchemes()}
}

func (s *Signer) tlsSchemes() []tls.SignatureScheme {
	switch key := s.public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P384():
			return []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}
		case elliptic.P521():
			return []tls.SignatureScheme{tls.ECDSAWithP521AndSHA512}
		}
		return []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	case ed25519.PublicKey:
		return []tls.SignatureScheme{tls.Ed25519}
	}
	return []tls.SignatureScheme{
		tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
		tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512,
	}
}

// failed is the error of a call, or of its context where that ended it.
func (c *Client) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fromContext(ctx.Err(), c.target)
	}
	return fromCall(err, c.target)
}
