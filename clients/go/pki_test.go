package hsmsign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority is a CA in memory, for certificates of device keys.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := caTemplate("Test CA")
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func leafTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"leaf.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func (a authority) issue(t *testing.T, signer *Signer) tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, leafTemplate(), a.certificate, signer.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return signer.TLSCertificate(der)
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// shake makes a mutual handshake; the errors of the server and of the client.
func shake(version uint16, pool *x509.CertPool, server, client tls.Certificate) (error, error) {
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	behind := make(chan error, 1)
	go func() {
		conn := tls.Server(left, &tls.Config{
			Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
			MinVersion: version, MaxVersion: version, SessionTicketsDisabled: true,
		})
		err := conn.Handshake()
		if err != nil {
			left.Close()
		}
		behind <- err
	}()
	conn := tls.Client(right, &tls.Config{
		RootCAs: pool, ServerName: "leaf.example", MinVersion: version, MaxVersion: version,
		// a client looks for a certificate that the server's list of schemes fits; here it gives the one there is
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
	})
	err := conn.Handshake()
	if err != nil {
		right.Close()
	}
	return <-behind, err
}

func TestHandshakesOfServersAndClientsWithEveryKindOfKey(t *testing.T) {
	daemon, ca := unixClient(t), newAuthority(t)
	for _, names := range [][2]string{
		{"ecdsa-p256", "rsa-2048"}, {"rsa-2048", "ed25519"}, {"ed25519", "ecdsa-p384"}, {"ecdsa-p384", "ecdsa-p521"},
		{"ecdsa-p521", "ecdsa-p256"}, {"tls-server", "tls-client"},
	} {
		server := ca.issue(t, signerOf(t, daemon, "go-"+names[0]))
		client := ca.issue(t, signerOf(t, daemon, "go-"+names[1]))
		for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
			t.Run(fmt.Sprintf("%s %s", names, tls.VersionName(version)), func(t *testing.T) {
				if there, here := shake(version, ca.pool(), server, client); there != nil || here != nil {
					t.Errorf("server: %v; client: %v", there, here)
				}
			})
		}
	}
}

func TestAKeyForServersDoesNotShakeHandsAsAClient(t *testing.T) {
	daemon, ca := unixClient(t), newAuthority(t)
	bound := ca.issue(t, signerOf(t, daemon, "go-tls-server"))
	if there, here := shake(tls.VersionTLS13, ca.pool(), bound, bound); there == nil && here == nil {
		t.Error("it did")
	}
}

func TestCertificatesRequestsAndRevocationListsAreSigned(t *testing.T) {
	daemon := tcpClient(t)
	leaf := signerOf(t, daemon, "go-csr")
	request, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"leaf.example"}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := x509.ParseCertificateRequest(request); err != nil || parsed.CheckSignature() != nil {
		t.Error(err)
	}
	for _, name := range []string{"go-ca", "go-rsa-2048", "go-ed25519", "go-ecdsa-p521"} {
		signer := signerOf(t, daemon, name)
		root := issued(t, caTemplate("Go CA"), caTemplate("Go CA"), signer.Public(), signer)
		if err := root.CheckSignatureFrom(root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := issued(t, leafTemplate(), root, leaf.Public(), signer).CheckSignatureFrom(root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(2), RevocationTime: time.Now()}},
		}, root, signer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if parsed, err := x509.ParseRevocationList(list); err != nil || parsed.CheckSignatureFrom(root) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARequestWithPSSIsSigned(t *testing.T) {
	signer := signerOf(t, unixClient(t), "go-rsa-2048")
	request, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{SignatureAlgorithm: x509.SHA384WithRSAPSS}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := x509.ParseCertificateRequest(request); err != nil || parsed.CheckSignature() != nil {
		t.Error(err)
	}
}

func issued(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, signer *Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatalf("%s: %v", signer.KeyVersion(), err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
