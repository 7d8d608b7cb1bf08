package hsmsign

import (
	"context"
	"crypto"
	"sync"
)

// calls of one large batch that are under way at the same time
const callsAhead = 4

// SignMany signs any number of digests (of Ed25519: messages). The results are in the order of the inputs, each with
// its own error. The error beside them is that of the options, or of the first call that failed as a whole; the results
// of the other calls are there even so.
func (s *Signer) SignMany(ctx context.Context, digests [][]byte, opts crypto.SignerOpts) ([]Result, error) {
	return s.many(ctx, digests, opts, false)
}

// SignManyMessages is SignMany for messages.
func (s *Signer) SignManyMessages(ctx context.Context, messages [][]byte, opts crypto.SignerOpts) ([]Result, error) {
	return s.many(ctx, messages, opts, true)
}

func (s *Signer) many(ctx context.Context, inputs [][]byte, opts crypto.SignerOpts, isMessage bool) ([]Result, error) {
	how, err := schemeFor(s.public, opts)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(inputs))
	pieces := s.pieces(how, inputs, isMessage, results)
	failures := make([]error, len(pieces))
	room := make(chan struct{}, callsAhead)
	var wait sync.WaitGroup
	for number, one := range pieces {
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			failures[number] = s.call(ctx, how, one, results)
		})
	}
	wait.Wait()
	for _, failure := range failures {
		if failure != nil {
			return results, failure
		}
	}
	return results, nil
}

// piece is one call of a large batch; places says where its results belong.
type piece struct {
	group
	places []int
	bytes  int
}

// pieces are calls of at most batchItems items and batchBytes bytes. What cannot be sent gets its error at once.
func (s *Signer) pieces(how scheme, inputs [][]byte, isMessage bool, results []Result) []*piece {
	var all []*piece
	current := map[kindOf]*piece{}
	for place, input := range inputs {
		kind, prepared, err := s.prepare(how, input, isMessage)
		if err != nil {
			results[place].Err = err
			continue
		}
		one := current[kind]
		if one == nil || len(one.inputs) == batchItems || one.bytes+len(prepared) > batchBytes {
			one = &piece{group: group{kindOf: kind}}
			current[kind] = one
			all = append(all, one)
		}
		one.inputs, one.places = append(one.inputs, prepared), append(one.places, place)
		one.bytes += len(prepared)
	}
	return all
}

// call sends one piece and puts its results where they belong.
func (s *Signer) call(ctx context.Context, how scheme, one *piece, results []Result) error {
	ctx, cancel := context.WithTimeout(ctx, s.client.deadline)
	defer cancel()
	answer, err := s.client.signGroups(ctx, []group{one.group})
	if err != nil {
		if ctx.Err() != nil {
			err = fromContext(ctx.Err(), s.client.target)
		}
		for _, place := range one.places {
			results[place].Err = err
		}
		return err
	}
	for number, place := range one.places {
		results[place] = answer[0][number]
		s.check(how, one.kindOf, one.inputs[number], &results[place])
	}
	return nil
}
