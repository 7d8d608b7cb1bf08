package hsmsign

import (
	"context"
	"crypto/tls"
	"time"

	"google.golang.org/grpc"

	"hsmsign.dev/go/internal/hsmsignv1"
)

const defaultDeadline = 30 * time.Second

// Client is a connection to a daemon. It may be used from many goroutines.
type Client struct {
	target   string
	deadline time.Duration
	conn     *grpc.ClientConn
	keys     hsmsignv1.KeyServiceClient
	signing  hsmsignv1.SigningServiceClient
	coalesce *coalescer
}

type settings struct {
	files    *TLSFiles
	config   *tls.Config
	deadline time.Duration
	flights  int
}

// Option is a setting of a client.
type Option func(*settings)

// WithTLSFiles names the PEM files for mutual TLS.
func WithTLSFiles(files TLSFiles) Option {
	return func(s *settings) { s.files = &files }
}

// WithTLSConfig gives the TLS configuration itself: with a client certificate, which may be renewed through
// GetClientCertificate. The configuration is copied.
func WithTLSConfig(config *tls.Config) Option {
	return func(s *settings) { s.config = config.Clone() }
}

// WithDeadline sets how long each call may take where its context says nothing shorter; 30 seconds by default.
func WithDeadline(deadline time.Duration) Option {
	return func(s *settings) { s.deadline = deadline }
}

// WithFlights sets how many coalesced batches may be under way at the same time; one by default. Several keep a slow
// device from holding up the keys of a fast one, and make batches smaller.
func WithFlights(number int) Option {
	return func(s *settings) { s.flights = number }
}

// Dial makes a client of the daemon at target: unix:///path/to/socket, or dns:///host:port with WithTLSFiles or
// WithTLSConfig. It begins to connect and does not wait: a daemon that is not there is the first call's error. ctx is
// looked at once, so that nothing is begun for a caller who has gone.
func Dial(ctx context.Context, target string, options ...Option) (*Client, error) {
	if ctx.Err() != nil {
		return nil, fromContext(ctx.Err(), target)
	}
	return open(target, nil, options)
}

// FromFile makes a client of the daemon that a client file (client.toml) names. Options go before what the file says.
func FromFile(path string, options ...Option) (*Client, error) {
	target, files, err := readClientFile(path)
	if err != nil {
		return nil, err
	}
	return open(target, files, options)
}

func open(target string, files *TLSFiles, options []Option) (*Client, error) {
	chosen := settings{files: files, deadline: defaultDeadline, flights: 1}
	for _, option := range options {
		option(&chosen)
	}
	if chosen.deadline <= 0 || chosen.flights < 1 {
		return nil, misconfigured("leave the option out for the default",
			"a deadline of %v with %d flights: both must be above 0", chosen.deadline, chosen.flights)
	}
	if chosen.config == nil && chosen.files != nil {
		config, err := chosen.files.load()
		if err != nil {
			return nil, err
		}
		chosen.config = config
	}
	to, err := newEndpoint(target, chosen.config)
	if err != nil {
		return nil, err
	}
	conn, err := openChannel(to)
	if err != nil {
		return nil, misconfigured(endpointForms, "%q cannot be used: %v", target, err)
	}
	conn.Connect()
	client := &Client{
		target: target, deadline: chosen.deadline, conn: conn,
		keys: hsmsignv1.NewKeyServiceClient(conn), signing: hsmsignv1.NewSigningServiceClient(conn),
	}
	client.coalesce = newCoalescer(chosen.flights, client.signGroups)
	return client, nil
}

// Close lets go of the connection; calls under way end with an error.
func (c *Client) Close() error { return c.conn.Close() }
