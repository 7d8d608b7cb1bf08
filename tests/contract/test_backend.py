"""What every device must do, asked of it as a front worker would: over its host's socket."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

from hsmsign.backends.base import ObjectQuery
from hsmsign.model.algorithms import Family, InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.device import DeviceKey, JobStatus
from hsmsign.model.errors import CapabilityMissingError, InvalidArgumentError, ObjectNotFoundError
from tests.support.host_process import HostProcess
from tests.support.verify import inputs, verify

WAYS = [
    (algorithm, scheme, kind)
    for algorithm in KeyAlgorithm
    for scheme in algorithm.schemes
    for kind in InputKind
    if not (scheme is Scheme.ED25519 and kind is InputKind.DIGEST)
]


@pytest.fixture(scope="module")
def keys(device: HostProcess) -> dict[KeyAlgorithm, DeviceKey]:
    """A key of every algorithm that the device has."""
    return {algorithm: device.generate(algorithm) for algorithm in device.describe().algorithms}


def test_the_device_says_who_it_is(device: HostProcess) -> None:
    info = device.describe()
    assert info.token_label
    assert device.config.token_label in (None, info.token_label)
    assert info.token_serial
    assert info.algorithms
    assert info.sessions == (device.config.sessions or 1)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_a_new_key_is_what_was_asked_for(
    device: HostProcess, keys: dict[KeyAlgorithm, DeviceKey], algorithm: KeyAlgorithm
) -> None:
    if algorithm not in keys:
        with pytest.raises(CapabilityMissingError, match=algorithm.value):
            device.generate(algorithm)
        return
    key = keys[algorithm]
    assert key.algorithm is algorithm
    assert key.facts.sensitive is True
    assert key.facts.extractable is False
    assert key.facts.local in (True, None)
    assert "pin" not in key.uri
    assert device.find(ObjectQuery(locator=key.locator)) == [key]


@pytest.mark.parametrize(("algorithm", "scheme", "kind"), WAYS)
def test_every_scheme_makes_signatures_that_others_accept(
    device: HostProcess,
    keys: dict[KeyAlgorithm, DeviceKey],
    algorithm: KeyAlgorithm,
    scheme: Scheme,
    kind: InputKind,
) -> None:
    if algorithm not in keys:
        assert algorithm not in device.describe().algorithms
        return
    messages = [b"\x00", b"a message", os.urandom(5000)]
    connection = device.signing()
    for form in SignatureFormat if algorithm.family is Family.EC else [SignatureFormat.DER]:
        results = connection.sign(keys[algorithm].locator, scheme, inputs(scheme, kind, messages), kind=kind, form=form)
        for message, result in zip(messages, results, strict=True):
            assert result.status is JobStatus.OK
            verify(keys[algorithm].public_key, scheme, result.signature, message, form)
    connection.close()


def test_a_thousand_signatures_come_back_each_to_its_own_message(
    device: HostProcess, keys: dict[KeyAlgorithm, DeviceKey]
) -> None:
    key = keys[KeyAlgorithm.EC_P256]
    messages = [b"message %d" % number for number in range(1000)]
    connection = device.signing()
    results = connection.sign(key.locator, Scheme.ECDSA_P256_SHA256, messages)
    connection.close()
    for message, result in zip(messages, results, strict=True):
        verify(key.public_key, Scheme.ECDSA_P256_SHA256, result.signature, message)


def test_many_connections_and_new_keys_at_once_disturb_nobody(
    device: HostProcess, keys: dict[KeyAlgorithm, DeviceKey]
) -> None:
    key = keys[KeyAlgorithm.EC_P256]
    wrong: list[BaseException] = []

    def sign(name: int) -> None:
        try:
            connection = device.signing()
            messages = [b"%d/%d" % (name, number) for number in range(200)]
            for message, result in zip(
                messages, connection.sign(key.locator, Scheme.ECDSA_P256_SHA256, messages), strict=True
            ):
                verify(key.public_key, Scheme.ECDSA_P256_SHA256, result.signature, message)
            connection.close()
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=sign, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    made = [device.generate(KeyAlgorithm.EC_P256) for _ in range(5)]
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len({new.public_key for new in made}) == 5


def test_a_key_of_nobody_is_not_found(device: HostProcess) -> None:
    locator = b"\x10" + os.urandom(16) + b"\x00"
    connection = device.signing()
    assert connection.sign(locator, Scheme.ECDSA_P256_SHA256, [b"m"])[0].status is JobStatus.KEY_NOT_FOUND
    connection.close()
    assert device.find(ObjectQuery(locator=locator)) == []
    assert device.destroy(locator) is False


@pytest.mark.parametrize("locator", [b"\x10short\x00", b"\x00\x00", b"\x01a"])
def test_what_is_no_locator_points_to_nothing(device: HostProcess, locator: bytes) -> None:
    with pytest.raises(ObjectNotFoundError):
        device.find(ObjectQuery(locator=locator))


def test_a_search_for_nothing_in_particular_is_refused(device: HostProcess) -> None:
    with pytest.raises(InvalidArgumentError):
        device.find(ObjectQuery())


def test_a_key_is_found_by_its_id_and_by_its_label(device: HostProcess) -> None:
    object_id, label = os.urandom(16), f"label {os.urandom(4).hex()}"
    key = device.generate(KeyAlgorithm.EC_P256, object_id, label)
    if not device.describe().keeps_keys:  # there is nothing on it that could be found, or be left behind
        assert device.find(ObjectQuery(id=object_id)) == []
        assert device.find(ObjectQuery(label=label)) == []
        assert device.destroy(b"\x10" + object_id + b"\x00") is False
        assert device.find(ObjectQuery(locator=key.locator)) == [key]
        return
    assert device.find(ObjectQuery(id=object_id)) == [key]
    assert [found.public_key for found in device.find(ObjectQuery(label=label))] == [key.public_key]
    assert device.find(ObjectQuery(id=object_id, label="another")) == []


def test_the_same_key_asked_for_twice_is_made_once(device: HostProcess) -> None:
    object_id = os.urandom(16)
    first = device.generate(KeyAlgorithm.EC_P256, object_id, "twice")
    if not device.describe().keeps_keys:  # the first is gone with its locator
        assert device.generate(KeyAlgorithm.EC_P256, object_id, "twice").public_key != first.public_key
        return
    assert device.generate(KeyAlgorithm.EC_P256, object_id, "twice") == first
    assert device.find(ObjectQuery(id=object_id)) == [first]


def test_a_destroyed_key_signs_no_more(device: HostProcess) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    connection = device.signing()
    assert connection.sign(key.locator, Scheme.ECDSA_P256_SHA256, [b"m"])[0].status is JobStatus.OK
    assert device.destroy(key.locator) is True
    if not device.describe().keeps_keys:  # destroyed is whose locator is forgotten: that is the keyring's part
        connection.close()
        return
    results = connection.sign(key.locator, Scheme.ECDSA_P256_SHA256, [b"m"] * 20)
    connection.close()
    assert {result.status for result in results} == {JobStatus.KEY_NOT_FOUND}
    assert device.find(ObjectQuery(locator=key.locator)) == []
    assert device.destroy(key.locator) is False


def test_two_keys_never_share_an_answer(device: HostProcess) -> None:
    pair = [device.generate(KeyAlgorithm.EC_P256) for _ in range(2)]
    connection = device.signing()
    scheme = Scheme.ECDSA_P256_SHA256
    orders = {connection.send(key.locator, scheme, [b"m%d" % n for n in range(100)]): key for key in pair}
    answers = connection.wait(dict.fromkeys(orders, 100))
    connection.close()
    for key, results in zip(orders.values(), answers, strict=True):
        for number, result in zip(itertools.count(), results):
            verify(key.public_key, scheme, result.signature, b"m%d" % number)


def test_keys_outlive_their_host(device: HostProcess) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    device.kill()
    device.start()
    device.wait_for_state("READY")
    assert device.find(ObjectQuery(locator=key.locator)) == [key]
    connection = device.signing()
    result = connection.sign(key.locator, Scheme.ECDSA_P256_SHA256, [b"after"])[0]
    connection.close()
    verify(key.public_key, Scheme.ECDSA_P256_SHA256, result.signature, b"after")
