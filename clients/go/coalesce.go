package hsmsign

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// coalescer makes batches of single signatures that are wanted at the same time. What is wanted while nothing is in
// flight goes at once; what is wanted meanwhile goes together, in the order of its coming, as soon as a flight has
// landed. There is no timer, so one caller alone waits for nothing.
type coalescer struct {
	send  func(context.Context, []group) ([][]Result, error)
	limit int

	mu      sync.Mutex
	flights int
	waiting []*item
}

// item is one signature that somebody waits for.
type item struct {
	ctx   context.Context
	kind  kindOf
	input []byte
	// has room for one, so that nobody waits for a caller who has gone
	done chan Result
}

func newCoalescer(limit int, send func(context.Context, []group) ([][]Result, error)) *coalescer {
	return &coalescer{send: send, limit: limit}
}

// sign waits for the result, or until ctx is over; then the error is ctx.Err(). The input must not change meanwhile.
func (c *coalescer) sign(ctx context.Context, kind kindOf, input []byte) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	mine := &item{ctx: ctx, kind: kind, input: input, done: make(chan Result, 1)}
	c.mu.Lock()
	c.waiting = append(c.waiting, mine)
	c.launch()
	c.mu.Unlock()
	select {
	case result := <-mine.done:
		return result, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// launch sends what waits while there may be more flights. The mutex is held.
func (c *coalescer) launch() {
	for c.flights < c.limit {
		batch := c.take()
		if len(batch) == 0 {
			return
		}
		c.flights++
		go c.fly(batch)
	}
}

// take gives the next items, the oldest first, as many as one call has room for. Those whose callers have gone are
// dropped. The mutex is held.
func (c *coalescer) take() []*item {
	var batch []*item
	size, place := 0, 0
	for ; place < len(c.waiting) && len(batch) < batchItems; place++ {
		next := c.waiting[place]
		if next.ctx.Err() != nil {
			continue
		}
		if len(batch) > 0 && size+len(next.input) > batchBytes {
			break
		}
		batch = append(batch, next)
		size += len(next.input)
	}
	// a new slice: what was taken must not be kept in memory by what waits
	c.waiting = append([]*item(nil), c.waiting[place:]...)
	return batch
}

func (c *coalescer) fly(batch []*item) {
	ctx, cancel := together(batch)
	groups, places := sort(batch)
	results, err := c.send(ctx, groups)
	cancel()
	for number, members := range places {
		for place, one := range members {
			if err != nil {
				one.done <- Result{Err: err}
			} else {
				one.done <- results[number][place]
			}
		}
	}
	c.mu.Lock()
	c.flights--
	c.launch()
	c.mu.Unlock()
}

// sort makes groups of what can stand together, and says which items each of them has.
func sort(batch []*item) ([]group, [][]*item) {
	var groups []group
	var places [][]*item
	numbers := map[kindOf]int{}
	for _, one := range batch {
		number, known := numbers[one.kind]
		if !known {
			number = len(groups)
			numbers[one.kind] = number
			groups = append(groups, group{kindOf: one.kind})
			places = append(places, nil)
		}
		groups[number].inputs = append(groups[number].inputs, one.input)
		places[number] = append(places[number], one)
	}
	return groups, places
}

// together is a context that lives until the last caller has gone. A batch of one has its caller's own, with what is
// in it (a trace, metadata); several callers share nothing.
func together(batch []*item) (context.Context, context.CancelFunc) {
	if len(batch) == 1 {
		return context.WithCancel(batch[0].ctx)
	}
	var latest time.Time
	for _, one := range batch {
		deadline, has := one.ctx.Deadline()
		if !has {
			latest = time.Time{}
			break
		}
		if deadline.After(latest) {
			latest = deadline
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if !latest.IsZero() {
		ctx, cancel = context.WithDeadline(context.Background(), latest)
	}
	var left atomic.Int64
	left.Store(int64(len(batch)))
	stops := make([]func() bool, 0, len(batch))
	for _, one := range batch {
		stops = append(stops, context.AfterFunc(one.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		}))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
