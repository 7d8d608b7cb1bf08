package hsmsign

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"hsmsign.dev/go/internal/hsmsignv1"
)

func answered() (group, *hsmsignv1.SignGroupResult) {
	sent := group{kindOf{"keys/a/versions/1", 1, 0}, [][]byte{{1}, {2}, {3}}}
	signatures := [][]byte{{4}, {}, {6}}
	return sent, &hsmsignv1.SignGroupResult{
		KeyVersion: "keys/a/versions/1", Scheme: 1, Signatures: signatures, SignaturesCrc32C: checksum(signatures),
		Failures: []*hsmsignv1.SignFailure{{Index: 1, Status: &rpcstatus.Status{Code: 3, Message: "bad"}}},
	}
}

func TestAnAnswerThatIsNotWhatWasAskedForGivesNoSignature(t *testing.T) {
	for name, spoil := range map[string]func(*hsmsignv1.SignGroupResult){
		"another version":  func(a *hsmsignv1.SignGroupResult) { a.KeyVersion = "keys/a/versions/10" },
		"another scheme":   func(a *hsmsignv1.SignGroupResult) { a.Scheme = 2 },
		"a changed bit":    func(a *hsmsignv1.SignGroupResult) { a.Signatures[0][0] ^= 1 },
		"one too few":      func(a *hsmsignv1.SignGroupResult) { a.Signatures = a.Signatures[:2] },
		"an error for all": func(a *hsmsignv1.SignGroupResult) { a.Status = &rpcstatus.Status{Code: 5, Message: "no"} },
		"nothing and no error": func(a *hsmsignv1.SignGroupResult) {
			a.Signatures, a.Failures = [][]byte{{}, {}, {}}, nil
			a.SignaturesCrc32C = 0
		},
	} {
		sent, answer := answered()
		spoil(answer)
		for place, result := range readGroup(sent, answer) {
			if result.Err == nil || result.Signature != nil && len(result.Signature) > 0 {
				t.Errorf("%s: item %d has %v", name, place, result)
			}
		}
	}
}

func TestOneBadItemDoesNotSpoilTheOthers(t *testing.T) {
	results := readGroup(answered())
	if results[0].Err != nil || results[1].Err == nil || results[2].Err != nil || results[2].Signature[0] != 6 {
		t.Error(results)
	}
}

func TestAHintMayComeAsALink(t *testing.T) {
	failed, err := status.New(codes.NotFound, "no").WithDetails(
		&errdetails.Help{Links: []*errdetails.Help_Link{{Description: "look there"}}})
	if err != nil {
		t.Fatal(err)
	}
	if made := fromStatus(failed.Proto()); made.Hint != "look there" {
		t.Errorf("%+v", made)
	}
}

func TestAnErrorOfTheDaemonComesWithItsReasonHintAndDetails(t *testing.T) {
	failed, err := status.New(codes.PermissionDenied, "the key signs tokens only").WithDetails(
		&errdetails.ErrorInfo{Domain: "hsmsign", Reason: "PURPOSE_MISMATCH",
			Metadata: map[string]string{"hint": "send a token", "key": "keys/a"}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	var made *Error
	if !errors.As(fromCall(failed.Err(), "unix:///x"), &made) {
		t.Fatal("no Error")
	}
	if made.Hint != "send a token" || made.Metadata["key"] != "keys/a" || made.RetryAfter != 2*time.Second {
		t.Errorf("%+v", made)
	}
	if !errors.Is(made, ErrPurposeMismatch) || !errors.Is(made, ErrPermissionDenied) || errors.Is(made, ErrKeyNotFound) {
		t.Error("it matches something else")
	}
	if status.Code(made) != codes.PermissionDenied {
		t.Error("gRPC reads another code")
	}
	if err := fromContext(context.DeadlineExceeded, "unix:///x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
