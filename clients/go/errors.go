package hsmsign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "hsmsign"

// Error is every error of this package that is about a call, an input or a configuration.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason is stable: KEY_NOT_FOUND, PURPOSE_MISMATCH, ...; empty where no daemon said it.
	Reason string
	// Message is what was wrong, in one sentence.
	Message string
	// Hint is what to do, or empty.
	Hint string
	// Metadata has details, such as the CKR_ name of a device's error.
	Metadata map[string]string
	// RetryAfter is set where trying again may help and is safe.
	RetryAfter time.Duration

	cause error
}

// For errors.Is: these match by reason, or (where they have none) by code.
var (
	ErrKeyNotFound        = &Error{Reason: "KEY_NOT_FOUND"}
	ErrPurposeMismatch    = &Error{Reason: "PURPOSE_MISMATCH"}
	ErrUnsupported        = &Error{Reason: "UNSUPPORTED"}
	ErrDigestLength       = &Error{Reason: "DIGEST_LENGTH"}
	ErrConfiguration      = &Error{Reason: "CONFIGURATION"}
	ErrSignatureCorrupted = &Error{Reason: "SIGNATURE_CORRUPTED"}
	ErrPermissionDenied   = &Error{Code: codes.PermissionDenied}
	ErrUnavailable        = &Error{Code: codes.Unavailable}
)

// Error is the message, with the hint after it.
func (e *Error) Error() string {
	if e.Hint == "" {
		return "hsmsign: " + e.Message
	}
	return "hsmsign: " + e.Message + " (" + e.Hint + ")"
}

// Is matches another Error by its reason, or by its code where it has no reason.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	if !ok {
		return false
	}
	if other.Reason != "" {
		return e.Reason == other.Reason
	}
	return e.Code == other.Code
}

// Unwrap gives context.DeadlineExceeded and context.Canceled where that is what happened.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus lets status.Code and its kin read the error.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

func unsupported(hint, format string, values ...any) *Error {
	return &Error{
		Code: codes.InvalidArgument, Reason: ErrUnsupported.Reason, Message: fmt.Sprintf(format, values...), Hint: hint,
	}
}

func misconfigured(hint, format string, values ...any) *Error {
	return &Error{
		Code: codes.InvalidArgument, Reason: ErrConfiguration.Reason, Message: fmt.Sprintf(format, values...), Hint: hint,
	}
}

func unexpected(format string, values ...any) *Error {
	return &Error{
		Code: codes.Internal, Reason: "INTERNAL", Message: fmt.Sprintf(format, values...), Hint: "report it as a bug",
	}
}

// fromContext is the error of a caller who waits no longer.
func fromContext(err error, target string) *Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{
			Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", cause: context.DeadlineExceeded,
			Message: fmt.Sprintf("no answer from %s before the deadline", target),
			Hint:    "give more time, or look at the backends: hsmsign backend list",
		}
	}
	return &Error{
		Code: codes.Canceled, Reason: "CANCELLED", cause: context.Canceled, Message: "the caller cancelled the call",
	}
}

// fromCall is the error that a failed call stands for. The caller still waits.
func fromCall(err error, target string) *Error {
	failed := status.Convert(err)
	made := fromStatus(failed.Proto())
	if made.Reason != "" {
		return made
	}
	switch failed.Code() {
	case codes.Unavailable:
		made.Message = fmt.Sprintf("cannot reach the daemon at %s: %s", target, failed.Message())
		made.Reason, made.Hint = "UNAVAILABLE", unreachable(failed.Message())
	case codes.DeadlineExceeded:
		return fromContext(context.DeadlineExceeded, target)
	case codes.Canceled:
		// callers who have gone are asked first (fromContext): this was the other side, which stops
		made.Code, made.Reason, made.cause = codes.Unavailable, "UNAVAILABLE", nil
		made.Message = fmt.Sprintf("the call to %s was ended: %s", target, failed.Message())
		made.Hint = "sign again: a daemon that stops does this, and a client that was closed"
	case codes.Unimplemented:
		made.Message = fmt.Sprintf("the daemon at %s does not know this call: %s", target, failed.Message())
		made.Hint = "is it hsmsign, and not older than this client?"
	}
	return made
}

// fromStatus is the error of one google.rpc.Status, of a call or of one item of a batch.
func fromStatus(failed *rpcstatus.Status) *Error {
	made := &Error{Code: codes.Code(failed.GetCode()), Message: failed.GetMessage()}
	for _, detail := range status.FromProto(failed).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				made.Reason, made.Metadata = detail.GetReason(), detail.GetMetadata()
			}
		case *errdetails.RetryInfo:
			made.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.Help:
			if len(detail.GetLinks()) > 0 {
				made.Hint = detail.GetLinks()[0].GetDescription()
			}
		}
	}
	if hint, ok := made.Metadata["hint"]; ok {
		made.Hint = hint
		delete(made.Metadata, "hint")
	}
	switch made.Code {
	case codes.DeadlineExceeded:
		made.cause = context.DeadlineExceeded
	case codes.Canceled:
		made.cause = context.Canceled
	}
	return made
}

func unreachable(details string) string {
	said := strings.ToLower(details)
	switch {
	case strings.Contains(said, "x509:") || strings.Contains(said, "failed to verify certificate"):
		return "the daemon's certificate was not accepted: is the CA the one that signed it, and does it hold the name" +
			" in the target (or the server name)?"
	case strings.Contains(said, "tls:") || strings.Contains(said, "handshake"):
		return "TLS failed: does the daemon's client_ca cover this client's certificate, and is it in date?"
	case strings.Contains(said, "permission denied"):
		return "this user may not open the socket; ask for its group or mode"
	}
	return "is the daemon running there? start it: hsmsign serve; ask it: hsmsign doctor"
}
