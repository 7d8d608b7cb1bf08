package hsmsign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"

	"google.golang.org/grpc/codes"

	"hsmsign.dev/go/internal/hsmsignv1"
)

// scheme is how a signature is made; hash is 0 for Ed25519, which signs messages only.
type scheme struct {
	number hsmsignv1.SignatureScheme
	hash   crypto.Hash
}

var (
	pkcs1 = map[crypto.Hash]hsmsignv1.SignatureScheme{
		crypto.SHA256: hsmsignv1.SignatureScheme_RSA_PKCS1_SHA256,
		crypto.SHA384: hsmsignv1.SignatureScheme_RSA_PKCS1_SHA384,
		crypto.SHA512: hsmsignv1.SignatureScheme_RSA_PKCS1_SHA512,
	}
	pss = map[crypto.Hash]hsmsignv1.SignatureScheme{
		crypto.SHA256: hsmsignv1.SignatureScheme_RSA_PSS_SHA256,
		crypto.SHA384: hsmsignv1.SignatureScheme_RSA_PSS_SHA384,
		crypto.SHA512: hsmsignv1.SignatureScheme_RSA_PSS_SHA512,
	}
)

// schemeFor is the scheme that a key signs with when a caller gives these options.
func schemeFor(public crypto.PublicKey, opts crypto.SignerOpts) (scheme, error) {
	hash := crypto.Hash(0)
	if opts != nil {
		hash = opts.HashFunc()
	}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsaScheme(key, hash)
	case *rsa.PublicKey:
		return rsaScheme(opts, hash)
	case ed25519.PublicKey:
		if hash != 0 {
			return scheme{}, unsupported("pass crypto.Hash(0), and the message", "Ed25519ph is not offered, Ed25519 is")
		}
		if with, ok := opts.(*ed25519.Options); ok && with.Context != "" {
			return scheme{}, unsupported("leave the context out", "Ed25519ctx is not offered, Ed25519 is")
		}
		return scheme{hsmsignv1.SignatureScheme_ED25519_PURE, 0}, nil
	}
	return scheme{}, unsupported("update this module", "keys of type %T are not known", public)
}

func ecdsaScheme(key *ecdsa.PublicKey, hash crypto.Hash) (scheme, error) {
	var wanted scheme
	switch key.Curve {
	case elliptic.P256():
		wanted = scheme{hsmsignv1.SignatureScheme_ECDSA_P256_SHA256, crypto.SHA256}
	case elliptic.P384():
		wanted = scheme{hsmsignv1.SignatureScheme_ECDSA_P384_SHA384, crypto.SHA384}
	case elliptic.P521():
		wanted = scheme{hsmsignv1.SignatureScheme_ECDSA_P521_SHA512, crypto.SHA512}
	default:
		return scheme{}, unsupported("use P-256, P-384 or P-521", "the curve %s is not known", key.Curve.Params().Name)
	}
	if hash != wanted.hash {
		return scheme{}, unsupported(
			"a curve has one hash; for TLS 1.2 use Signer.TLSCertificate",
			"a %s key signs with %v, not %v", key.Curve.Params().Name, wanted.hash, hash)
	}
	return wanted, nil
}

func rsaScheme(opts crypto.SignerOpts, hash crypto.Hash) (scheme, error) {
	table := pkcs1
	if with, ok := opts.(*rsa.PSSOptions); ok {
		table = pss
		salt := with.SaltLength
		if salt != rsa.PSSSaltLengthAuto && salt != rsa.PSSSaltLengthEqualsHash && (table[hash] == 0 || salt != hash.Size()) {
			return scheme{}, unsupported("use rsa.PSSSaltLengthEqualsHash", "a PSS salt is as long as the hash, not %d bytes", salt)
		}
	}
	if table[hash] == 0 {
		return scheme{}, unsupported("name one in the options", "RSA signs with SHA-256, SHA-384 or SHA-512, not %v", hash)
	}
	return scheme{table[hash], hash}, nil
}

// checkDigest says whether it can be a digest for the scheme.
func (s scheme) checkDigest(digest []byte) error {
	if s.hash == 0 || len(digest) == s.hash.Size() {
		return nil
	}
	return &Error{
		Code: codes.InvalidArgument, Reason: ErrDigestLength.Reason,
		Message: unsupported("", "a %v digest has %d bytes, this one has %d", s.hash, s.hash.Size(), len(digest)).Message,
		Hint:    "Sign takes the digest, SignMessage the message",
	}
}

// verify checks a signature with the public key.
func (s scheme) verify(public crypto.PublicKey, input, signature []byte, isMessage bool) bool {
	if s.hash != 0 && isMessage {
		input = s.digest(input)
	}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, input, signature)
	case *rsa.PublicKey:
		if pss[s.hash] == s.number {
			with := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.VerifyPSS(key, s.hash, input, signature, with) == nil
		}
		return rsa.VerifyPKCS1v15(key, s.hash, input, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, input, signature)
	}
	return false
}

func (s scheme) digest(message []byte) []byte {
	hasher := s.hash.New()
	hasher.Write(message)
	return hasher.Sum(nil)
}
