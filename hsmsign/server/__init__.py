"""gRPC services: translate a request, call one thing, translate back."""
