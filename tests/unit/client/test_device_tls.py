from __future__ import annotations

from typing import Any

import pytest

from hsmsign.client import device_tls
from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.errors import AlgorithmMismatchError, VersionStateError


class Future:
    """An answer that is there before anybody waits for it: rare, and no real daemon can be made to."""

    def add_done_callback(self, function: Any) -> None:
        function(self)

    def cancel(self) -> None:
        pass


class Client:
    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer

    def _begin(self, order: Any, deadline: float) -> tuple[Future, Any]:
        return Future(), order

    def _finish(self, future: Future, call: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return type("Signature", (), {"value": self.answer})


class Signer:
    algorithm = KeyAlgorithm.EC_P256
    key_version = "keys/k/versions/1"

    def __init__(self, answer: bytes | Exception) -> None:
        self._client = Client(answer)


def never(_: object) -> None:
    raise AssertionError("gRPC's lock is held")


def handshakes(answer: bytes | Exception, told: list[Any]) -> Any:
    return device_tls._Handshakes(Signer(answer), told.append)  # type: ignore[arg-type]


def test_an_answer_that_is_there_at_once_is_returned_and_not_handed_in() -> None:
    told: list[Any] = []
    assert handshakes(b"signature", told)(b"message", 3, never) == b"signature"
    assert told == [None]


def test_a_refusal_that_is_there_at_once_is_raised_with_its_words() -> None:
    told: list[Any] = []
    refusal = VersionStateError("keys/k/versions/1 is disabled")
    with pytest.raises(RuntimeError, match="VERSION_NOT_ENABLED: keys/k/versions/1 is disabled"):
        handshakes(refusal, told)(b"message", 3, never)
    assert told == [refusal]


def test_an_algorithm_that_is_not_the_keys_is_not_signed_with() -> None:
    told: list[Any] = []
    with pytest.raises(RuntimeError, match="ALGORITHM_MISMATCH"):
        handshakes(b"signature", told)(b"message", 4, never)
    assert isinstance(told[0], AlgorithmMismatchError)


@pytest.mark.parametrize(
    ("number", "scheme"),
    [
        (0, Scheme.RSA_PKCS1_SHA256),
        (2, Scheme.RSA_PKCS1_SHA512),
        (3, Scheme.ECDSA_P256_SHA256),
        (5, Scheme.ECDSA_P521_SHA512),
        (7, Scheme.RSA_PSS_SHA384),
    ],
)
def test_numbers_of_grpc_are_schemes(number: int, scheme: Scheme) -> None:
    assert device_tls._scheme(number) is scheme
