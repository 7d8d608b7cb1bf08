from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

import hsmsign
from hsmsign import AdoptedObject, Health, InputKind, Scheme, SignatureFormat
from hsmsign.client import signatures
from hsmsign.client.values import VersionState
from hsmsign.model import errors
from tests.support import fake_server

PREHASHED = ec.ECDSA(utils.Prehashed(hashes.SHA256()))


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def test_a_key_is_made_read_listed_and_changed(client):
    made = client.create_key("web-1", "ecdsa-p256", labels={"team": "web"})
    assert made.name == "keys/web-1"
    assert made.algorithm is hsmsign.KeyAlgorithm.EC_P256
    assert made.primary.state is VersionState.ENABLED
    assert made.primary.facts.sensitive is True
    assert made.primary.facts.local is None
    assert client.get_key("keys/web-1").labels == {"team": "web"}
    assert client.update_labels("web-1", {"team": "x"}).labels == {"team": "x"}
    assert [key.name for key in client.list_keys(labels={"team": "x"})] == ["keys/web-1"]
    assert list(client.list_keys(labels={"team": "web"})) == []


def test_a_listing_goes_over_all_pages(client):
    wanted = [f"keys/k{number}" for number in range(7)]
    for name in wanted:
        client.create_key(name, "ed25519")
    assert [key.name for key in client.list_keys(page_size=2)] == wanted


def test_a_rotated_key_signs_with_its_new_version_until_told_otherwise(client):
    client.create_key("web-1", "ecdsa-p256")
    client.rotate_key("web-1")
    assert client.sign("web-1", message=b"m").key_version == "keys/web-1/versions/2"
    client.set_primary("web-1", 1)
    assert client.sign("web-1", message=b"m").key_version == "keys/web-1/versions/1"
    client.disable_version("keys/web-1/versions/1")
    with pytest.raises(errors.VersionStateError):
        client.sign("web-1", message=b"m")
    client.enable_version("keys/web-1/versions/1")
    assert client.sign("web-1", message=b"m")


def test_destroying_can_be_tried_first(client):
    client.create_key("web-1", adopt="pkcs11:object=x", algorithm="ecdsa-p256")
    with pytest.raises(errors.AdoptedKeyError) as caught:
        client.destroy_key("web-1")
    assert caught.value.hint
    tried = client.destroy_key("web-1", adopted=AdoptedObject.RELEASE, validate_only=True)
    assert tried.primary.state is VersionState.DESTROYED
    assert client.get_key("web-1").primary.state is VersionState.ENABLED
    client.destroy_key("web-1", adopted=AdoptedObject.RELEASE)
    assert client.get_key("web-1").primary.state is VersionState.DESTROYED


@pytest.mark.parametrize("form", list(SignatureFormat))
def test_a_signature_of_a_message_and_of_its_digest_are_valid(client, form):
    client.create_key("web-1", "ecdsa-p256")
    digest = hashlib.sha256(b"hello").digest()
    for given in ({"message": b"hello"}, {"digest": digest}):
        made = client.sign("web-1", format=form, **given)
        assert made.scheme is Scheme.ECDSA_P256_SHA256
        assert client.verify("web-1", made.value, message=b"hello", format=form)
        assert not client.verify("web-1", made.value, message=b"other", format=form)


@pytest.mark.parametrize("given", [{}, {"message": b"a", "digest": b"b"}])
def test_exactly_one_input_is_wanted(client, given):
    with pytest.raises(errors.InvalidArgumentError, match="one of message= and digest="):
        client.sign("web-1", **given)


def test_an_rsa_key_wants_a_scheme(client):
    client.create_key("r", "rsa-2048")
    with pytest.raises(errors.SchemeMissingError) as caught:
        client.sign("r", message=b"m")
    assert "RSA_PSS_SHA256" in caught.value.hint
    made = client.sign("r", message=b"m", scheme=Scheme.RSA_PSS_SHA384)
    assert client.verify("r", made.value, message=b"m", scheme=Scheme.RSA_PSS_SHA384)


def test_a_signature_that_changed_on_its_way_is_refused(client, state):
    client.create_key("web-1", "ecdsa-p256")
    state.corrupt_signatures = True
    with pytest.raises(errors.SignatureCorruptedError):
        client.sign("web-1", message=b"m")
    with pytest.raises(errors.SignatureCorruptedError):
        client.sign_batch("web-1", digests(3))


def test_a_batch_has_a_signature_or_an_error_for_each_input(client):
    client.create_key("web-1", "ecdsa-p256")
    inputs = [*digests(3), b"short"]
    batch = client.sign_batch("web-1", inputs)
    public = client.public_key("web-1")
    for signature, digest in zip(batch[:3], inputs, strict=False):
        public.verify(signature, digest, PREHASHED)
    assert isinstance(batch[3], errors.DigestLengthError)
    assert list(batch.errors) == [3]
    with pytest.raises(errors.DigestLengthError):
        batch.signatures()


def test_a_large_batch_is_split_and_signed_by_one_version(client, state, monkeypatch):
    monkeypatch.setattr(signatures, "BATCH_ITEMS", 10)
    client.create_key("web-1", "ed25519")
    seen = []
    messages = [b"m%d" % number for number in range(95)]
    batch = client.sign_batch("web-1", messages, kind=InputKind.MESSAGE, on_progress=seen.append)
    public = client.public_key("web-1")
    for signature, message in zip(batch.signatures(), messages, strict=True):
        public.verify(signature, message)
    assert seen[-1] == 95
    assert seen == sorted(seen)
    assert sorted(state.batch_sizes) == [5] + [10] * 9
    assert set(state.batch_names[1:]) == {"keys/web-1/versions/1"}


def test_a_batch_of_large_messages_is_split_by_bytes(client, state, monkeypatch):
    monkeypatch.setattr(signatures, "BATCH_BYTES", 1000)
    client.create_key("web-1", "ecdsa-p256")
    batch = client.sign_batch("web-1", [bytes([n]) * 400 for n in range(1, 9)], kind=InputKind.MESSAGE)
    assert len(batch.signatures()) == 8
    assert max(state.batch_sizes) == 2


def test_an_empty_batch_asks_nobody(client, state):
    assert client.sign_batch("web-1", []) == []
    assert state.calls == []


def test_an_unknown_key_is_one_error_for_the_batch(client):
    with pytest.raises(errors.KeyNotFoundError):
        client.sign_batch("nobody", digests(3))


@pytest.mark.parametrize("group_size", [1, 7, 64])
def test_a_stream_answers_in_the_order_of_its_inputs(client, group_size):
    client.create_key("web-1", "ed25519")
    messages = [b"m%d" % number for number in range(200)]
    public = client.public_key("web-1")
    answers = client.sign_stream("web-1", iter(messages), kind=InputKind.MESSAGE, group_size=group_size)
    for signature, message in zip(answers, messages, strict=True):
        public.verify(signature, message)


def test_a_stream_raises_what_its_inputs_raise(client):
    client.create_key("web-1", "ed25519")

    def inputs():
        yield b"one"
        raise RuntimeError("the source dried up")

    with pytest.raises(RuntimeError, match="dried up"):
        list(client.sign_stream("web-1", inputs(), kind=InputKind.MESSAGE, group_size=1))


def test_a_stream_can_be_left_early(client):
    client.create_key("web-1", "ed25519")
    stream = client.sign_stream("web-1", (b"x" for _ in range(10**6)), kind=InputKind.MESSAGE, group_size=1)
    assert isinstance(next(stream), bytes)
    stream.close()
    assert client.sign("web-1", message=b"m")


def test_a_daemon_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with hsmsign.connect(f"unix://{tmp_path}/none.sock") as client, pytest.raises(errors.UnavailableError) as caught:
        client.get_key("web-1")
    assert str(tmp_path) in str(caught.value)
    assert "hsmsign serve" in caught.value.hint


def test_a_safe_call_is_sent_again_when_the_daemon_says_not_now(client, state):
    client.create_key("web-1", "ecdsa-p256")
    state.fail_next.append(errors.DeviceUnavailableError("starting"))
    assert client.sign("web-1", message=b"m")
    assert state.calls.count("Sign") == 2


def test_a_repeated_creation_makes_one_key(client, state):
    state.fail_next.append(errors.StoreUnavailableError("locked"))
    client.create_key("web-1", "ecdsa-p256")
    assert state.calls.count("CreateKey") == 2
    assert list(state.keys) == ["keys/web-1"]


def test_destroying_is_not_repeated(client, state):
    client.create_key("web-1", "ecdsa-p256")
    state.fail_next.append(errors.DeviceUnavailableError("starting"))
    with pytest.raises(errors.DeviceUnavailableError):
        client.destroy_key("web-1")
    assert state.calls.count("DestroyKey") == 1


def test_an_error_comes_back_as_its_own_class_with_all_its_parts(client, state):
    state.fail_next.append(
        errors.QueueFullError("full", hint="wait a little", metadata={"ckr": "CKR_X"}, retry_after=1.5)
    )
    with pytest.raises(errors.QueueFullError, match="full") as caught:
        client.get_key("web-1")
    assert (caught.value.hint, caught.value.metadata, caught.value.retry_after) == (
        "wait a little",
        {"ckr": "CKR_X"},
        1.5,
    )


def test_backends_and_health_are_told(client):
    assert client.backends()[0].name == "backends/soft"
    assert client.daemon_version() == "9.9.9"
    assert client.health() is Health.SERVING
    assert client.health("backends/soft") is Health.NOT_SERVING


def test_a_bad_name_is_refused_before_any_call(client, state):
    with pytest.raises(errors.ResourceNameError):
        client.sign("Bad Name", message=b"m")
    assert state.calls == []


async def test_the_asyncio_client_does_the_same(daemon, monkeypatch):
    monkeypatch.setattr(signatures, "BATCH_ITEMS", 10)
    async with hsmsign.aio.connect(daemon[0]) as client:
        await client.create_key("web-1", "ecdsa-p256")
        made = await client.sign("web-1", message=b"m")
        assert await client.verify("web-1", made.value, message=b"m")
        batch = await client.sign_batch("web-1", [*digests(35), b"short"])
        public = await client.public_key("web-1")
        for signature, digest in zip(batch[:35], digests(35), strict=True):
            public.verify(signature, digest, PREHASHED)
        assert isinstance(batch[35], errors.DigestLengthError)
        with pytest.raises(errors.KeyNotFoundError):
            await client.get_key("nobody")
        assert [key.name async for key in client.list_keys()] == ["keys/web-1"]
        assert await client.health() is Health.SERVING


async def test_the_asyncio_stream_answers_in_order(daemon):
    async def inputs():
        for digest in digests(100):
            yield digest

    async with hsmsign.aio.connect(daemon[0]) as client:
        await client.create_key("web-1", "ecdsa-p256")
        public = await client.public_key("web-1")
        for source in (inputs(), digests(100)):
            answers = [answer async for answer in client.sign_stream("web-1", source, group_size=7)]
            for signature, digest in zip(answers, digests(100), strict=True):
                public.verify(signature, digest, PREHASHED)


async def test_the_asyncio_client_names_a_daemon_that_is_not_there(tmp_path):
    async with hsmsign.aio.connect(f"unix://{tmp_path}/none.sock") as client:
        with pytest.raises(errors.UnavailableError, match=r"none\.sock"):
            await client.get_key("web-1")


def test_a_stream_that_ends_too_early_is_an_error(client, monkeypatch):
    client.create_key("web-1", "ed25519")
    monkeypatch.setattr(client, "_stream", lambda: _ending_early)
    with pytest.raises(errors.UnavailableError, match="before it had answered"):
        list(client.sign_stream("web-1", [b"one"], kind=InputKind.MESSAGE))


class _ending_early:  # noqa: N801 - stands for a call
    def __init__(self, requests, timeout):
        list(requests)

    def __iter__(self):
        return iter(())

    def cancel(self):
        pass


def test_a_daemon_that_restarts_is_a_delay(tmp_path):
    target = f"unix://{tmp_path}/d.sock"
    server, before, _ = fake_server.serve(target)
    with hsmsign.connect(target) as client:
        client.create_key("web-1", "ed25519")
        server.stop(0).wait()
        server, after, _ = fake_server.serve(target)
        after.keys, after.private = before.keys, before.private
        assert client.sign("web-1", message=b"m")
    server.stop(0).wait()
