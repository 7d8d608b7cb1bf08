package hsmsign

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const maxMessageBytes = 32 << 20

// Reading and signing are harmless to repeat. About three seconds: a daemon that restarts is a delay, one that is not
// there an error. CANCELLED: a gRPC server that stops says this to calls that reach it in the last moment; a call that
// the caller itself cancelled is over and not repeated.
const serviceConfig = `{"methodConfig": [{
  "name": [
    {"service": "hsmsign.v1.KeyService", "method": "GetPublicKey"},
    {"service": "hsmsign.v1.SigningService", "method": "SignBatch"}
  ],
  "retryPolicy": {
    "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1.5s", "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
  }
}]}`

func openChannel(to endpoint) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
			// a batch must fit, or it is not sent a second time
			grpc.MaxRetryRPCBufferSize(maxMessageBytes),
		),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// what DNS says of retries is not asked
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 60 * time.Second, Timeout: 20 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second,
			},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithUserAgent("hsmsign-go"),
		// http_proxy in the environment is about the web, not about a signing daemon (often on localhost)
		grpc.WithNoProxy(),
	}
	if to.tls == nil {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	} else {
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(to.tls)))
	}
	return grpc.NewClient(to.target, options...)
}
