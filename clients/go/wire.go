package hsmsign

import (
	"context"
	"fmt"
	"hash/crc32"
	"strings"

	"google.golang.org/grpc/codes"

	"hsmsign.dev/go/internal/hsmsignv1"
)

const (
	// items in one call; the daemon takes at most 10,000
	batchItems = 4096
	// input bytes in one call; the daemon takes at most 16 MiB
	batchBytes = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Result is what became of one input: a signature, or an error.
type Result struct {
	Signature []byte
	// KeyVersion is the version that signed: keys/ID/versions/N.
	KeyVersion string
	Err        error
}

// kindOf is what can stand together in a group.
type kindOf struct {
	name   string
	scheme hsmsignv1.SignatureScheme
	kind   hsmsignv1.SignGroup_InputKind
}

// group is inputs of one kind for one key, to be sent with their checksum.
type group struct {
	kindOf
	inputs [][]byte
}

// signGroups is SignBatch: for every group as many results as it has inputs. The error is that of the whole call.
func (c *Client) signGroups(ctx context.Context, groups []group) ([][]Result, error) {
	request := &hsmsignv1.SignBatchRequest{}
	for _, one := range groups {
		sum := checksum(one.inputs)
		request.Groups = append(request.Groups, &hsmsignv1.SignGroup{
			Name: one.name, Scheme: one.scheme, Kind: one.kind, Inputs: one.inputs, InputsCrc32C: &sum,
		})
	}
	answer, err := c.signing.SignBatch(ctx, request)
	if err != nil {
		return nil, fromCall(err, c.target)
	}
	if len(answer.GetGroups()) != len(groups) {
		return nil, unexpected("the daemon answered %d groups with %d", len(groups), len(answer.GetGroups()))
	}
	results := make([][]Result, len(groups))
	for place, one := range groups {
		results[place] = readGroup(one, answer.GetGroups()[place])
	}
	return results, nil
}

// readGroup checks a group's answer. What is wrong with all of it is the error of each.
func readGroup(sent group, answer *hsmsignv1.SignGroupResult) []Result {
	results := make([]Result, len(sent.inputs))
	if err := checkGroup(sent, answer); err != nil {
		for place := range results {
			results[place].Err = err
		}
		return results
	}
	for place, signature := range answer.GetSignatures() {
		results[place] = Result{Signature: signature, KeyVersion: answer.GetKeyVersion()}
	}
	for _, failure := range answer.GetFailures() {
		if int64(failure.GetIndex()) < int64(len(results)) {
			results[failure.GetIndex()] = Result{KeyVersion: answer.GetKeyVersion(), Err: fromStatus(failure.GetStatus())}
		}
	}
	for place := range results {
		if results[place].Err == nil && len(results[place].Signature) == 0 {
			results[place].Err = unexpected("the daemon left an input without a signature and without an error")
		}
	}
	return results
}

func checkGroup(sent group, answer *hsmsignv1.SignGroupResult) error {
	if answer.GetStatus() != nil {
		return fromStatus(answer.GetStatus())
	}
	if len(answer.GetSignatures()) != len(sent.inputs) {
		return unexpected("the daemon answered %d inputs with %d signatures", len(sent.inputs), len(answer.GetSignatures()))
	}
	if version := answer.GetKeyVersion(); !belongs(version, sent.name) {
		return unexpected("%s was asked to sign, and %q did", sent.name, version)
	}
	if answer.GetScheme() != sent.scheme {
		return unexpected("%v was asked for, and %s signed with %v", sent.scheme, sent.name, answer.GetScheme())
	}
	if checksum(answer.GetSignatures()) != answer.GetSignaturesCrc32C() {
		return &Error{
			Code: codes.DataLoss, Reason: ErrSignatureCorrupted.Reason,
			Message: fmt.Sprintf("signatures of %s changed on their way here: their CRC32C does not fit", sent.name),
			Hint:    "sign again; if it comes back, look at the machine's memory and at proxies in between",
		}
	}
	return nil
}

// belongs says whether a version is the one that was named, or one of the key that was named.
func belongs(version, named string) bool {
	if strings.Contains(named, "/versions/") {
		return version == named
	}
	return strings.HasPrefix(version, named+"/versions/")
}

func checksum(pieces [][]byte) uint32 {
	sum := uint32(0)
	for _, piece := range pieces {
		sum = crc32.Update(sum, castagnoli, piece)
	}
	return sum
}
