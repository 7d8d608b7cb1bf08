package hsmsign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
)

// desk is what a coalescer sends to: it keeps every call until it is told to answer.
type desk struct {
	calls chan []group
	gate  chan error
}

func newDesk() *desk { return &desk{make(chan []group, 100), make(chan error)} }

func (d *desk) send(ctx context.Context, groups []group) ([][]Result, error) {
	d.calls <- groups
	select {
	case err := <-d.gate:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	results := make([][]Result, len(groups))
	for number, one := range groups {
		for _, input := range one.inputs {
			result := Result{Signature: append([]byte(one.name+":"), input...)}
			if bytes.Equal(input, []byte("bad")) {
				result = Result{Err: errors.New("a bad input")}
			}
			results[number] = append(results[number], result)
		}
	}
	return results, nil
}

func count(groups []group) int {
	sum := 0
	for _, one := range groups {
		sum += len(one.inputs)
	}
	return sum
}

var someKind = kindOf{name: "keys/a/versions/1", scheme: 1}

func TestACallGoesAtOnceAndWhatComesMeanwhileGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk := newDesk()
		coalescer := newCoalescer(1, desk.send)
		var wait sync.WaitGroup
		sign := func(input string) {
			wait.Go(func() {
				result, err := coalescer.sign(t.Context(), someKind, []byte(input))
				if err != nil || string(result.Signature) != someKind.name+":"+input {
					t.Errorf("%s: %q, %v", input, result.Signature, err)
				}
			})
		}
		sign("first")
		synctest.Wait()
		if got := count(<-desk.calls); got != 1 {
			t.Fatalf("the first call took %d items with it", got)
		}
		for number := range 63 {
			sign(fmt.Sprint(number))
		}
		synctest.Wait()
		if len(desk.calls) != 0 {
			t.Fatal("a second call went while the first was in flight")
		}
		desk.gate <- nil
		synctest.Wait()
		if got := count(<-desk.calls); got != 63 {
			t.Fatalf("%d of 63 went together", got)
		}
		desk.gate <- nil
		wait.Wait()
	})
}

func TestEachItemHasItsOwnErrorAndGroupsAreByKeySchemeAndKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk := newDesk()
		coalescer := newCoalescer(1, desk.send)
		kinds := []kindOf{someKind, {name: "keys/b/versions/1", scheme: 1}, {name: "keys/b/versions/1", scheme: 2},
			{name: "keys/b/versions/1", scheme: 2, kind: 1}}
		var wait sync.WaitGroup
		go func() { _, _ = coalescer.sign(t.Context(), someKind, []byte("first")) }()
		synctest.Wait()
		<-desk.calls
		for place := range 40 {
			wait.Go(func() {
				input := "good"
				if place%10 == 3 {
					input = "bad"
				}
				result, err := coalescer.sign(t.Context(), kinds[place%4], []byte(input))
				if err != nil || (result.Err != nil) != (input == "bad") {
					t.Errorf("%s: %v, %v", input, result.Err, err)
				}
				if input == "good" && string(result.Signature) != kinds[place%4].name+":good" {
					t.Errorf("the answer of another: %q", result.Signature)
				}
			})
		}
		synctest.Wait()
		desk.gate <- nil
		synctest.Wait()
		if groups := <-desk.calls; len(groups) != 4 || count(groups) != 40 {
			t.Fatalf("%d groups with %d items", len(groups), count(groups))
		}
		desk.gate <- nil
		wait.Wait()
	})
}

func TestAnItemWhoseCallerHasGoneIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk := newDesk()
		coalescer := newCoalescer(1, desk.send)
		var wait sync.WaitGroup
		wait.Go(func() { _, _ = coalescer.sign(t.Context(), someKind, []byte("first")) })
		synctest.Wait()
		<-desk.calls
		ctx, cancel := context.WithCancel(t.Context())
		wait.Go(func() {
			if _, err := coalescer.sign(ctx, someKind, []byte("gone")); !errors.Is(err, context.Canceled) {
				t.Errorf("who has gone was told %v", err)
			}
		})
		wait.Go(func() { _, _ = coalescer.sign(t.Context(), someKind, []byte("stays")) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		desk.gate <- nil
		synctest.Wait()
		if groups := <-desk.calls; count(groups) != 1 || string(groups[0].inputs[0]) != "stays" {
			t.Fatalf("sent: %q", groups[0].inputs)
		}
		desk.gate <- nil
		wait.Wait()
	})
}

func TestACallThatNobodyWaitsForEndsAndTheNextGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk := newDesk()
		coalescer := newCoalescer(1, desk.send)
		var wait sync.WaitGroup
		wait.Go(func() { _, _ = coalescer.sign(t.Context(), someKind, []byte("first")) })
		synctest.Wait()
		<-desk.calls
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			wait.Go(func() { _, _ = coalescer.sign(ctx, someKind, []byte("gone")) })
		}
		synctest.Wait()
		desk.gate <- nil
		synctest.Wait()
		<-desk.calls
		wait.Go(func() { _, _ = coalescer.sign(t.Context(), someKind, []byte("next")) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		if groups := <-desk.calls; string(groups[0].inputs[0]) != "next" {
			t.Fatalf("sent: %q", groups[0].inputs)
		}
		desk.gate <- nil
		wait.Wait()
	})
}

func TestABatchIsNoLargerThanACallTakesAndTheOldestGoesFirst(t *testing.T) {
	coalescer := newCoalescer(1, nil)
	for number := range 2 * batchItems {
		coalescer.waiting = append(coalescer.waiting, &item{ctx: t.Context(), input: fmt.Append(nil, number)})
	}
	if batch := coalescer.take(); len(batch) != batchItems || string(batch[0].input) != "0" {
		t.Fatalf("%d items", len(batch))
	}
	if batch := coalescer.take(); string(batch[0].input) != fmt.Sprint(batchItems) || len(coalescer.waiting) != 0 {
		t.Fatalf("the second begins with %s, and %d are left", batch[0].input, len(coalescer.waiting))
	}
	for range 10 {
		coalescer.waiting = append(coalescer.waiting, &item{ctx: t.Context(), input: make([]byte, 1<<20)})
	}
	if batch := coalescer.take(); len(batch) != 8 {
		t.Fatalf("%d mebibytes in one call", len(batch))
	}
}

func TestTheErrorOfACallIsThatOfEachOfItsItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk := newDesk()
		coalescer := newCoalescer(4, desk.send)
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				if result, _ := coalescer.sign(t.Context(), someKind, []byte("x")); result.Err == nil {
					t.Error("no error")
				}
			})
		}
		for range 4 {
			desk.gate <- errors.New("the daemon is away")
		}
		wait.Wait()
	})
}
