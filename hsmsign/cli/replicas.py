"""hsmsign replica …"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import click

from hsmsign.cli.approvals import Approved, waiting
from hsmsign.cli.common import Session, pass_session, shared, table, when
from hsmsign.model.errors import HsmsignError, ObjectNotFoundError

_backend = click.option("--backend", "-b", required=True, metavar="BACKEND", help="The token with the copy.")


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one version."""

    version: str
    outcome: str
    """"added", "there already", "not on that token", or "failed"."""
    error: str = ""


@click.group()
def replica() -> None:
    """Let further tokens that hold a key sign for it."""


@replica.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_backend
@click.option("--all", "everything", is_flag=True, help="Every key of which that token has a copy.")
@click.option("--uri", metavar="URI", help="Which object it is there (pkcs11:…), where its CKA_ID is another.")
@shared
@pass_session
def add(session: Session, names: tuple[str, ...], backend: str, everything: bool, uri: str | None) -> int:
    """Add replicas, each once it has signed a challenge: of all versions of a key, or of one.

    The copies are made before, with the means of the tokens' vendor. Exit code 1 where one is missing."""
    if bool(names) is everything:
        raise click.UsageError("name keys, or say --all")
    if uri and (everything or len(names) != 1):
        raise click.UsageError("--uri is about one object: name one version")
    wanted = list(_versions(session, names, everything, backend))
    if uri and len(wanted) != 1:
        raise click.UsageError(f"--uri is about one object: name one of {', '.join(one for one, _ in wanted)}")
    done = [_add(session, *one, backend, uri) for one in wanted]
    session.show(done, lambda: _told(done, everything))
    bad = {"failed"} if everything else {"failed", "not on that token"}
    return int(any(one.outcome in bad for one in done))


def _versions(session: Session, names: tuple[str, ...], everything: bool, backend: str) -> Iterable[tuple[str, bool]]:
    """All that are meant, and are not destroyed; and whether they have this replica already."""
    from hsmsign.client import VersionState

    listed = [one.name for one in session.client.list_keys() if one.backend != backend] if everything else names
    for name in listed:
        full = session.name(name)
        versions = session.client.get_key(full.partition("/versions/")[0]).versions
        there = {one.name: any(replica.backend == backend for replica in one.replicas) for one in versions}
        if "/versions/" in full:
            yield full, there.get(full, False)
            continue
        yield from ((one.name, there[one.name]) for one in versions if one.state is not VersionState.DESTROYED)


def _add(session: Session, version: str, there: bool, backend: str, uri: str | None) -> Added:
    if there:
        return Added(version, "there already")
    try:
        session.client.add_replica(version, backend, uri=uri)
    except ObjectNotFoundError as error:
        return Added(version, "not on that token", error.message)
    except HsmsignError as error:
        return Added(version, "failed", " ".join(filter(None, (error.message, error.hint))))
    return Added(version, "added")


def _told(done: list[Added], everything: bool) -> list[str]:
    shown = [one for one in done if not (everything and one.outcome == "not on that token")]
    lines = [f"{one.version}: {one.outcome}{f' ({one.error})' if one.error else ''}" for one in shown]
    if everything:
        missing = len(done) - len(shown)
        lines.append(f"{len(shown)} versions have a copy there, {missing} have none")
    return lines or ["nothing to add"]


@replica.command()
@click.argument("name")
@_backend
@shared
@pass_session
@waiting
def remove(session: Session, name: str, backend: str, approved: Approved) -> None:
    """Let a token no longer sign for a version (or a key's primary one). The object stays on it."""
    full = session.name(name)
    info = approved(lambda: session.client.remove_replica(full, backend))
    session.show(info, lambda: [f"{info.name} has no replica on {backend} any more; the object is still on that token"])


@replica.command("list")
@click.argument("name")
@shared
@pass_session
def list_(session: Session, name: str) -> None:
    """The replicas of a key's versions."""
    full = session.name(name)
    info = session.client.get_key(full.partition("/versions/")[0])
    versions = [one for one in info.versions if full in (info.name, one.name)]
    rows = [
        [one.name, copy.backend, when(copy.created), copy.pkcs11_uri or "-"]
        for one in versions
        for copy in one.replicas
    ]
    found = {one.name: one.replicas for one in versions}
    session.show(found, lambda: table(["VERSION", "BACKEND", "SINCE", "OBJECT"], rows) if rows else ["no replicas"])
