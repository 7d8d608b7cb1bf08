"""The messages and services of protos/hsmsign/v1: made from them when the package is built, not edited."""
