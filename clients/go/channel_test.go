package hsmsign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hsmsign.dev/go/internal/hsmsignv1"
)

// troubled is a daemon with troubles that no real one can be made to have when a test wants them.
type troubled struct {
	hsmsignv1.UnimplementedKeyServiceServer
	hsmsignv1.UnimplementedSigningServiceServer
	key      *ecdsa.PrivateKey
	troubles chan codes.Code
	calls    atomic.Int32
	// what it signs instead of what was sent
	instead []byte
}

func (d *troubled) trouble() error {
	d.calls.Add(1)
	select {
	case code := <-d.troubles:
		return status.Error(code, "trouble")
	default:
		return nil
	}
}

func (d *troubled) GetPublicKey(_ context.Context, asked *hsmsignv1.GetPublicKeyRequest) (*hsmsignv1.PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(d.key.Public())
	if err != nil {
		return nil, err
	}
	return &hsmsignv1.PublicKey{Name: asked.GetName() + "/versions/1", Der: der}, d.trouble()
}

func (d *troubled) SignBatch(_ context.Context, asked *hsmsignv1.SignBatchRequest) (*hsmsignv1.SignBatchResponse, error) {
	if err := d.trouble(); err != nil {
		return nil, err
	}
	answer := &hsmsignv1.SignBatchResponse{}
	for _, one := range asked.GetGroups() {
		result := &hsmsignv1.SignGroupResult{KeyVersion: one.GetName(), Scheme: one.GetScheme()}
		for _, input := range one.GetInputs() {
			if d.instead != nil {
				input = d.instead
			}
			if one.GetKind() == hsmsignv1.SignGroup_MESSAGE {
				input = digestOf(crypto.SHA256, input)
			}
			signature, err := ecdsa.SignASN1(rand.Reader, d.key, input)
			if err != nil {
				return nil, err
			}
			result.Signatures = append(result.Signatures, signature)
		}
		result.SignaturesCrc32C = checksum(result.Signatures)
		answer.Groups = append(answer.Groups, result)
	}
	return answer, nil
}

func serve(t *testing.T) (*troubled, *Client) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "hsmsign") // not the test's own: a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	listener, err := net.Listen("unix", filepath.Join(folder, "s"))
	if err != nil {
		t.Fatal(err)
	}
	daemon := &troubled{key: key, troubles: make(chan codes.Code, 10)}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes))
	hsmsignv1.RegisterKeyServiceServer(server, daemon)
	hsmsignv1.RegisterSigningServiceServer(server, daemon)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client, err := Dial(t.Context(), "unix://"+filepath.Join(folder, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return daemon, client
}

func TestACallIsRepeatedWhileTheDaemonIsUnavailable(t *testing.T) {
	daemon, client := serve(t)
	daemon.troubles <- codes.Unavailable
	daemon.troubles <- codes.Canceled
	signer := signerOf(t, client, "a")
	// more than gRPC keeps for a repetition by itself
	messages := [][]byte{make([]byte, messageMax), make([]byte, messageMax)}
	daemon.troubles <- codes.Unavailable
	results, err := signer.SignManyMessages(t.Context(), messages, crypto.SHA256)
	if err != nil || results[1].Err != nil {
		t.Errorf("%v", err)
	}
	if calls := daemon.calls.Load(); calls != 5 {
		t.Errorf("%d calls", calls)
	}
}

func TestARefusalIsNotRepeated(t *testing.T) {
	daemon, client := serve(t)
	daemon.troubles <- codes.PermissionDenied
	if _, err := client.Signer(t.Context(), "a"); !errors.Is(err, ErrPermissionDenied) || daemon.calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, daemon.calls.Load())
	}
}

func TestASignatureThatDoesNotVerifyIsNotGivenOut(t *testing.T) {
	daemon, client := serve(t)
	signer := signerOf(t, client, "a", WithVerification())
	if _, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256); err != nil {
		t.Error(err)
	}
	daemon.instead = []byte("something else")
	signature, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256)
	if !errors.Is(err, ErrSignatureCorrupted) || signature != nil {
		t.Error(err)
	}
	results, err := signer.SignManyMessages(t.Context(), [][]byte{[]byte("x")}, crypto.SHA256)
	if err != nil || !errors.Is(results[0].Err, ErrSignatureCorrupted) || results[0].Signature != nil {
		t.Error(results, err)
	}
}
