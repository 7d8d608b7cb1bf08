"""The log's files: what is written stays, what is not finished goes, what is changed is found."""

from __future__ import annotations

import base64
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsmsign.audit import proofs, reading, segments, verifying
from hsmsign.audit.log import AuditLog
from hsmsign.audit.proofs import Proof
from hsmsign.model.errors import AuditError, ConfigurationError, NotFoundError
from tests.support.audit_log import VERIFIER, checkpoint, fill, make, signed

FULL = segments.SEGMENT


def good(folder: Path, **more) -> bool:
    report = verifying.verify(folder, VERIFIER, **more)
    return report.good


def words(folder: Path, **more) -> str:
    return "; ".join(finding.words for finding in verifying.verify(folder, VERIFIER, **more).findings)


def last(folder: Path) -> Path:
    return sorted(folder.glob("records-*"))[-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "log"
    make(folder, 5, FULL - 5, 100, FULL + 3, 7)
    return folder


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """A log of three segments, the last not full, with some checkpoints."""
    return Path(shutil.copytree(made, tmp_path / "log"))


def test_what_was_recorded_is_there_and_good(folder: Path) -> None:
    report = verifying.verify(folder, VERIFIER)
    assert report.good
    assert (report.size, report.covered, report.checkpoints) == (2 * FULL + 110, 2 * FULL + 110, 5)
    assert [json.loads(line)["number"] for _, line in reading.records(folder, 2 * FULL + 103)] == list(range(7))
    assert reading.size(folder) == report.size


def test_a_log_goes_on_where_it_ended(folder: Path) -> None:
    before = verifying.verify(folder, VERIFIER).size
    for _ in range(3):
        log = AuditLog.open(folder)
        fill(log, 1)
        checkpoint(log)
        log.close()
    report = verifying.verify(folder, VERIFIER)
    assert report.good
    assert report.size == before + 3


@pytest.mark.parametrize("index", [0, 4, FULL - 1, FULL, FULL + 50, 2 * FULL - 1, 2 * FULL, 2 * FULL + 109])
def test_each_record_can_be_proved_without_the_log(folder: Path, index: int) -> None:
    note = (folder / "checkpoint").read_bytes()
    data = proofs.prove(folder, index, note).encode()
    record = Proof.decode(data).check(VERIFIER)
    (_, line) = next(reading.records(folder, index))
    assert record == json.loads(line)
    assert proofs.find(folder, record["id"]) == index
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(AuditError):
            Proof.decode(bytes(changed)).check(VERIFIER)


def test_what_cannot_be_proved_is_said(folder: Path) -> None:
    note = (folder / "checkpoint").read_bytes()
    with pytest.raises(NotFoundError, match="below the newest checkpoint"):
        proofs.prove(folder, 2 * FULL + 110, note)
    with pytest.raises(NotFoundError, match="no record has the id"):
        proofs.find(folder, "nobody")


# --- crashes


@pytest.mark.parametrize("cut", [1, 30, 100, 400])
def test_a_record_that_was_not_finished_is_taken_away_and_that_is_recorded(folder: Path, cut: int) -> None:
    log = AuditLog.open(folder)
    fill(log, 5)
    log.close()
    path, before = last(folder), verifying.verify(folder, VERIFIER).size
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - cut)
    log = AuditLog.open(folder)
    fill(log, 1)
    log.close()
    found = [json.loads(line) for _, line in reading.records(folder, before - 5)]
    recovered = found[-2]
    assert recovered["event"] == "recovered"
    torn = (folder / recovered["torn_file"]).read_bytes()
    assert len(torn) == recovered["torn_bytes"] > 0
    assert good(folder)


def test_zeros_that_a_crash_left_are_no_records(folder: Path) -> None:
    with last(folder).open("ab") as file:
        file.write(bytes(5000))
    AuditLog.open(folder).close()
    assert good(folder)


def test_a_crash_while_a_segment_was_sealed(folder: Path) -> None:
    lines = (folder / "roots").read_bytes().splitlines(keepends=True)
    last(folder).unlink()
    for note in ("checkpoint", "checkpoints"):
        (folder / note).unlink()
    for left in (lines[0], lines[0] + lines[1][:10]):
        (folder / "roots").write_bytes(left)
        AuditLog.open(folder).close()
        assert (folder / "roots").read_bytes() == b"".join(lines)
        assert good(folder)


def test_a_checkpoint_that_was_not_finished_is_taken_away(folder: Path) -> None:
    with (folder / "checkpoints").open("ab") as file:
        file.write(b"example.com/log\n123")
    log = AuditLog.open(folder)
    fill(log, 1)
    checkpoint(log)
    log.close()
    assert good(folder)


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_takes_nothing_in_and_loses_nothing(folder: Path) -> None:
    log = AuditLog.open(folder)
    size = log.head().size
    with full_disk(last(folder).stat().st_size + 150), pytest.raises(OSError, match="large"):
        fill(log, 10)  # one fits, the second does not
    assert log.head().size == size
    fill(log, 2)
    checkpoint(log)
    log.close()
    report = verifying.verify(folder, VERIFIER)
    assert report.good
    assert report.size == size + 2


# --- others' hands


def test_one_daemon_at_a_time(folder: Path) -> None:
    log = AuditLog.open(folder)
    with pytest.raises(ConfigurationError, match="another daemon's"):
        AuditLog.open(folder)
    log.close()
    AuditLog.open(folder).close()


def test_only_checkpoints_of_this_log_are_kept(folder: Path, tmp_path: Path) -> None:
    (other,) = make(tmp_path / "other", 3)
    log = AuditLog.open(folder)
    with pytest.raises(AuditError, match="never had"):
        log.keep(other)
    log.close()


def test_a_checkpoint_that_is_older_than_another_takes_no_place(folder: Path) -> None:
    log = AuditLog.open(folder)
    fill(log, 3)
    older = signed(log)
    fill(log, 2)
    newer = signed(log)
    log.keep(newer)
    log.keep(older)  # its worker was slower
    log.close()
    assert segments.newest(folder) == newer
    AuditLog.open(folder).close()


def rewrite(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("first", [0, FULL, 2 * FULL])
@pytest.mark.parametrize("how", ["changed", "missing", "doubled", "swapped"])
def test_whatever_is_done_to_a_record_is_found(folder: Path, first: int, how: str) -> None:
    path = folder / segments.name(first)
    lines = path.read_bytes().splitlines(keepends=True)
    changes = {
        "changed": [lines[0], lines[1].replace(b"OK", b"KO").replace(b"test", b"tesT"), *lines[2:]],
        "missing": [lines[0], *lines[2:]],
        "doubled": [lines[0], *lines],
        "swapped": [lines[1], lines[0], *lines[2:]],
    }
    rewrite(path, changes[how])
    assert not good(folder)


def test_a_log_that_was_cut_off_is_found_and_not_opened(folder: Path) -> None:
    path = last(folder)
    rewrite(path, path.read_bytes().splitlines(keepends=True)[:-3])
    assert "the log was cut off" in words(folder)
    with pytest.raises(AuditError, match="at its newest checkpoint"):
        AuditLog.open(folder)


def test_a_log_that_was_changed_below_its_checkpoint_is_not_opened(folder: Path) -> None:
    path = last(folder)
    path.write_bytes(path.read_bytes().replace(b'"number":3', b'"number":4', 1))
    with pytest.raises(AuditError, match="not those of its newest checkpoint"):
        AuditLog.open(folder)


def test_a_log_that_was_rolled_back_is_found_by_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    folder, old = tmp_path / "log", tmp_path / "old"
    make(folder, 10)
    shutil.copytree(folder, old)
    (kept,) = make(folder, 5)
    assert good(folder, kept=[kept])
    assert good(old)
    assert "kept elsewhere says that there were 15 records; 10 are left" in words(old, kept=[kept])
    make(old, 5)  # another history of the same length, signed by the same key
    assert good(old)
    assert "of another log" in words(old, kept=[kept])


def test_a_missing_segment_is_found_unless_it_was_archived(folder: Path) -> None:
    (folder / segments.name(FULL)).unlink()
    assert "is missing" in words(folder)
    assert good(folder, archived=True)
    assert verifying.verify(folder, VERIFIER, archived=True).archived == FULL
    (folder / "roots").write_bytes((folder / "roots").read_bytes().splitlines(keepends=True)[0] * 2)
    assert not good(folder, archived=True)


def test_a_kept_checkpoint_that_ends_in_a_missing_segment_is_never_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    kept, newest = make(folder, FULL + 10, FULL)
    assert good(folder, kept=[kept, newest], archived=True)
    away = folder / segments.name(FULL)
    away.unlink()
    assert good(folder, archived=True)  # the log's own one is covered by the newest
    assert good(folder, kept=[newest], archived=True)
    found = words(folder, kept=[kept], archived=True)
    assert f"kept elsewhere, of {FULL + 10} records, was not checked" in found
    assert f"{away.name}; put that file back" in found
    assert f"{FULL + 10} records, was not checked" in words(folder, kept=[kept])


def test_a_log_that_was_rewritten_behind_missing_segments_is_not_good(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    (kept,) = make(folder, FULL + 10)
    log = AuditLog.open(folder)
    fill(log, FULL)
    log.close()
    for path in (*folder.glob("records-*"), folder / "checkpoint", folder / "checkpoints"):
        path.unlink()
    forged = base64.b64encode(bytes(32)) + b"\n"
    (folder / "roots").write_bytes(forged * 2)
    (folder / segments.name(2 * FULL)).write_bytes(b'{"event":"forged"}\n')
    assert "put that file back" in words(folder, kept=[kept], archived=True)
    assert "no good checkpoint covers it" in words(folder, archived=True)  # also where nothing was kept


def test_a_missing_segment_wants_a_good_checkpoint_that_covers_it(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    make(folder, 5)
    log = AuditLog.open(folder)
    fill(log, FULL)
    log.close()  # full, and its only checkpoint ends inside of it
    (folder / segments.name(0)).unlink()
    found = words(folder, archived=True)
    assert f"{segments.name(0)} is not here, and no good checkpoint covers it: put it back" in found


def test_what_does_not_belong_to_it_is_found(folder: Path) -> None:
    (folder / segments.name(7 * FULL)).write_bytes(b"{}\n")
    assert "does not belong" in words(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "log"
    make(folder, 3, 4)
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flipped_bit_is_found(small: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "log"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small, folder)
    path = folder / data.draw(st.sampled_from([segments.name(0), "checkpoint", "checkpoints"]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert not good(folder)
