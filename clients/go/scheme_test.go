package hsmsign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"hsmsign.dev/go/internal/hsmsignv1"
)

func curve(t *testing.T, of elliptic.Curve) *ecdsa.PublicKey {
	key, err := ecdsa.GenerateKey(of, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func TestWhatNoSchemeHasIsRefusedWithWords(t *testing.T) {
	p256, p384, p224 := curve(t, elliptic.P256()), curve(t, elliptic.P384()), curve(t, elliptic.P224())
	for name, one := range map[string]struct {
		key  crypto.PublicKey
		opts crypto.SignerOpts
	}{
		"P-256 with SHA-384":       {p256, crypto.SHA384},
		"P-384 with SHA-256":       {p384, crypto.SHA256},
		"EC without options":       {p256, nil},
		"another curve":            {p224, crypto.SHA256},
		"RSA with SHA-1":           {&rsa.PublicKey{}, crypto.SHA1},
		"RSA without a hash":       {&rsa.PublicKey{}, crypto.Hash(0)},
		"PSS with a short salt":    {&rsa.PublicKey{}, &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}},
		"PSS without a hash":       {&rsa.PublicKey{}, &rsa.PSSOptions{SaltLength: 32}},
		"Ed25519ph":                {ed25519.PublicKey{}, &ed25519.Options{Hash: crypto.SHA512}},
		"Ed25519ctx":               {ed25519.PublicKey{}, &ed25519.Options{Context: "mine"}},
		"a key of an unknown kind": {"key", crypto.SHA256},
	} {
		if _, err := schemeFor(one.key, one.opts); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		} else if err.(*Error).Hint == "" {
			t.Errorf("%s: nothing says what to do", name)
		}
	}
}

func TestPSSTakesASaltAsLongAsTheHashInEveryForm(t *testing.T) {
	for _, salt := range []int{rsa.PSSSaltLengthAuto, rsa.PSSSaltLengthEqualsHash, 48} {
		how, err := schemeFor(&rsa.PublicKey{}, &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA384})
		if err != nil || how.number != hsmsignv1.SignatureScheme_RSA_PSS_SHA384 {
			t.Errorf("%d: %v, %v", salt, how, err)
		}
	}
}

func TestADigestOfAnotherLengthIsRefusedBeforeItIsSent(t *testing.T) {
	signer := &Signer{public: curve(t, elliptic.P256())} // no client: a call would panic
	if _, err := signer.Sign(nil, make([]byte, 20), crypto.SHA256); !errors.Is(err, ErrDigestLength) {
		t.Error(err)
	}
}
