package hsmsign

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// tests/integration/test_go_client.py starts a daemon, makes the keys and says in the environment where it is.
func environment(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Skip(name + " is not set, so there is no daemon: .venv/bin/pytest tests/integration/test_go_client.py starts one")
	}
	return value
}

func unixClient(t *testing.T, options ...Option) *Client {
	t.Helper()
	client, err := Dial(t.Context(), environment(t, "HSMSIGN_TEST_UNIX"), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func tcpClient(t *testing.T) *Client {
	t.Helper()
	client, err := FromFile(environment(t, "HSMSIGN_TEST_CLIENT"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func signerOf(t *testing.T, client *Client, name string, options ...SignerOption) *Signer {
	t.Helper()
	signer, err := client.Signer(t.Context(), name, options...)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func digestOf(hash crypto.Hash, message []byte) []byte {
	hasher := hash.New()
	hasher.Write(message)
	return hasher.Sum(nil)
}

func TestEveryAlgorithmSignsOverBothTransports(t *testing.T) {
	var rsaOptions []crypto.SignerOpts
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		rsaOptions = append(rsaOptions, hash,
			&rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthAuto},
			&rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	message := []byte("what is signed")
	for transport, client := range map[string]*Client{"unix": unixClient(t), "tcp": tcpClient(t)} {
		for algorithm, options := range map[string][]crypto.SignerOpts{
			"ecdsa-p256": {crypto.SHA256}, "ecdsa-p384": {crypto.SHA384}, "ecdsa-p521": {crypto.SHA512},
			"rsa-2048": rsaOptions, "rsa-3072": rsaOptions[:3], "rsa-4096": rsaOptions[:3], "ed25519": {crypto.Hash(0)},
		} {
			signer := signerOf(t, client, "keys/go-"+algorithm)
			for _, opts := range options {
				how, err := schemeFor(signer.Public(), opts)
				if err != nil {
					t.Fatal(err)
				}
				input := message
				if how.hash != 0 {
					input = digestOf(how.hash, message)
				}
				if signature, err := signer.Sign(rand.Reader, input, opts); err != nil || !how.verify(signer.Public(), message, signature, true) {
					t.Errorf("%s %s %v: a digest: %v", transport, algorithm, how, err)
				}
				if signature, err := crypto.SignMessage(signer, nil, message, opts); err != nil || !how.verify(signer.Public(), message, signature, true) {
					t.Errorf("%s %s %v: a message: %v", transport, algorithm, how, err)
				}
			}
		}
	}
}

func TestAMessageThatIsTooLargeToTravelIsSignedByItsDigest(t *testing.T) {
	signer := signerOf(t, unixClient(t), "go-ecdsa-p256", WithVerification())
	for _, size := range []int{0, messageMax, messageMax + 1} {
		if _, err := signer.SignMessage(nil, make([]byte, size), crypto.SHA256); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	client := unixClient(t)
	var failed *Error
	if _, err := client.Signer(t.Context(), "keys/nobody"); !errors.Is(err, ErrKeyNotFound) {
		t.Errorf("an unknown key: %v", err)
	} else if !errors.As(err, &failed) || failed.Code != codes.NotFound || failed.Hint == "" {
		t.Errorf("%+v", failed)
	}
	if _, err := client.Signer(t.Context(), "go-ecdsa-p256", WithVersion(7)); !errors.Is(err, ErrKeyNotFound) {
		t.Errorf("an unknown version: %v", err)
	}
	forbidden := signerOf(t, client, "go-forbidden")
	if _, err := forbidden.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrPermissionDenied) {
		t.Errorf("no permission: %v", err)
	}
	bound := signerOf(t, client, "go-csr")
	if _, err := bound.SignMessage(nil, []byte("no request"), crypto.SHA256); !errors.Is(err, ErrPurposeMismatch) {
		t.Errorf("another purpose: %v", err)
	}
	if _, err := bound.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrPurposeMismatch) {
		t.Errorf("a digest for a key with a purpose: %v", err)
	}
}

func TestADaemonOfAnotherCAIsNotTrusted(t *testing.T) {
	folder := environment(t, "HSMSIGN_TEST_TLS")
	other := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(other, newAuthority(t).pem, 0o600); err != nil {
		t.Fatal(err)
	}
	files := TLSFiles{other, filepath.Join(folder, "client.pem"), filepath.Join(folder, "client-key.pem"), ""}
	client, err := Dial(t.Context(), environment(t, "HSMSIGN_TEST_TCP"), WithTLSFiles(files), WithDeadline(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var failed *Error
	if _, err := client.Signer(t.Context(), "go-ecdsa-p256"); !errors.Is(err, ErrUnavailable) || !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if wanted := "the daemon's certificate was not accepted"; len(failed.Hint) < len(wanted) || failed.Hint[:len(wanted)] != wanted {
		t.Errorf("%v", failed)
	}
}

func TestDeadlinesAndCancellingEndACall(t *testing.T) {
	signer := signerOf(t, unixClient(t), "go-ecdsa-p256")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := signer.SignMessageContext(gone, []byte("x"), crypto.SHA256); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	late, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := signer.SignMessageContext(late, []byte("x"), crypto.SHA256); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("late: %v", err)
	}
	if _, err := signer.SignMany(late, [][]byte{make([]byte, 32)}, crypto.SHA256); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("many, late: %v", err)
	}
	if _, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256); err != nil {
		t.Errorf("after that: %v", err)
	}
	hasty := unixClient(t, WithDeadline(time.Nanosecond))
	if _, err := hasty.Signer(t.Context(), "go-ecdsa-p256"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the client's deadline: %v", err)
	}
}

// groups is how many groups the daemon has answered: each is one observation of its time.
func groups(t *testing.T) int {
	t.Helper()
	answer, err := http.Get(environment(t, "HSMSIGN_TEST_METRICS"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, found := range regexp.MustCompile(`(?m)^hsmsign_sign_seconds_count\{[^}]*\} (\S+)`).FindAllSubmatch(text, -1) {
		value, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += value
	}
	return int(sum)
}

func TestSignaturesThatAreWantedAtTheSameTimeTravelTogether(t *testing.T) {
	const goroutines, each = 64, 20
	client := unixClient(t)
	signers := []*Signer{signerOf(t, client, "go-ecdsa-p256"), signerOf(t, client, "go-ed25519"), signerOf(t, client, "go-csr")}
	before := groups(t)
	var wait sync.WaitGroup
	for number := range goroutines {
		wait.Go(func() {
			for turn := range each {
				message := fmt.Appendf(nil, "%d %d", number, turn)
				signer, opts := signers[number%3], []crypto.SignerOpts{crypto.SHA256, crypto.Hash(0), crypto.SHA256}[number%3]
				signature, err := signer.SignMessage(nil, message, opts)
				if number%3 == 2 {
					if !errors.Is(err, ErrPurposeMismatch) {
						t.Errorf("what is no request was signed for, or not refused: %v", err)
					}
					continue
				}
				how, _ := schemeFor(signer.Public(), opts)
				if err != nil || !how.verify(signer.Public(), message, signature, true) {
					t.Errorf("%s: %v", message, err)
				}
			}
		})
	}
	wait.Wait()
	if made := groups(t) - before; made < 1 || made > goroutines*each/4 {
		t.Errorf("%d signatures went in %d groups", goroutines*each, made)
	}
}

func TestManySignaturesComeInTheOrderOfTheirInputs(t *testing.T) {
	signer := signerOf(t, tcpClient(t), "go-ecdsa-p256", WithVerification())
	digests := make([][]byte, batchItems+5)
	for number := range digests {
		sum := sha256.Sum256(fmt.Append(nil, number))
		digests[number] = sum[:]
	}
	digests[3] = make([]byte, 20)
	results, err := signer.SignMany(t.Context(), digests, crypto.SHA256)
	if err != nil || len(results) != len(digests) {
		t.Fatal(len(results), err)
	}
	for number, result := range results {
		if number == 3 {
			if !errors.Is(result.Err, ErrDigestLength) {
				t.Error(result.Err)
			}
		} else if result.Err != nil || result.KeyVersion != "keys/go-ecdsa-p256/versions/1" {
			t.Fatalf("%d: %+v", number, result)
		}
	}
	bound := signerOf(t, tcpClient(t), "go-csr")
	results, err = bound.SignManyMessages(t.Context(), [][]byte{[]byte("x")}, crypto.SHA256)
	if err != nil || !errors.Is(results[0].Err, ErrPurposeMismatch) {
		t.Error(results, err)
	}
}

// The Python test restarts the daemon when it sees the first file, and makes the second one when that is done.
func TestADaemonThatIsRestartedInMidLoadIsFoundAgain(t *testing.T) {
	folder := environment(t, "HSMSIGN_TEST_RESTART")
	signer := signerOf(t, unixClient(t), "go-ecdsa-p384", WithVerification())
	restarted := func() bool {
		_, err := os.Stat(filepath.Join(folder, "restarted"))
		return err == nil
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for number := 0; !restarted(); number++ {
				_, err := signer.SignMessage(nil, fmt.Append(nil, number), crypto.SHA384)
				if err != nil && !errors.Is(err, ErrUnavailable) {
					t.Errorf("something else than a daemon that is away: %v", err)
				}
			}
		})
	}
	if err := os.WriteFile(filepath.Join(folder, "loaded"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if _, err := signer.Sign(nil, make([]byte, sha512.Size384), crypto.SHA384); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}
