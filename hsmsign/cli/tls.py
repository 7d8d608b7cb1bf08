"""hsmsign tls …: for applications behind TLS."""

from __future__ import annotations

from pathlib import Path

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared
from hsmsign.cli.failures import EX_NO
from hsmsign.tls import reading
from hsmsign.tls.peer import Peer
from hsmsign.tls.rules import Action, Call, Decision, Request, Rule


@click.group()
def tls() -> None:
    """Rights by client certificate, for applications behind TLS."""


@tls.command("check-rules")
@click.argument("file", type=READABLE)
@click.option("--peer", "name", metavar="NAME", help="spiffe://…, dns:…, email:…, or sha256:… of its public key.")
@click.option("--key", metavar="sha256:HEX", help="The public key of that peer, if a rule names keys.")
@click.option("--method", metavar="METHOD", help="Of HTTP; WEBSOCKET opens one.")
@click.option("--path", metavar="PATH", help="As it is sent, percent-encoded.")
@click.option("--call", metavar="/SERVICE/METHOD", help="The full name of a gRPC method.")
@shared
@pass_session
@click.pass_context
def check_rules(
    context: click.Context,
    session: Session,
    file: Path,
    name: str | None,
    key: str | None,
    method: str | None,
    path: str | None,
    call: str | None,
) -> None:
    """Check a file of rules; with --peer and what it does, say whether that is allowed, and by which rule.

    Exit code 0: good, or allowed; 1: denied; 78: the file has a mistake.
    """
    rules = reading.read(file)
    action = _action(method, path, call)
    if name is None and action is None:
        words = f"{rules.source}: good, {len(rules.rules)} rule{'' if len(rules.rules) == 1 else 's'}"
        session.show({"rules": rules.source, "count": len(rules.rules)}, lambda: [words])
        return
    if name is None or action is None:
        raise click.UsageError("say --peer NAME and what it does (--method and --path, or --call), or neither")
    peer = _peer(name, key)
    decision = rules.decide(peer, action)
    about = [] if action.unclear() else rules.explain(peer, action)
    session.show(_plain(decision, about), lambda: _lines(decision, about))
    if not decision.allowed:
        context.exit(EX_NO)


def _action(method: str | None, path: str | None, call: str | None) -> Action | None:
    if call is not None:
        if method is not None or path is not None:
            raise click.UsageError("--method and --path are of HTTP, --call is of gRPC: say one or the other")
        return Call(call)
    if method is None and path is None:
        return None
    if method is None or path is None:
        raise click.UsageError("say both --method METHOD and --path PATH")
    return Request.sent(method, path)


def _peer(name: str, key: str | None) -> Peer:
    for text, option in ((name, "--peer"), (key, "--key")):
        schemes = reading.SCHEMES if option == "--peer" else ("sha256:",)
        if text is not None and not text.startswith(schemes):
            raise click.BadParameter(f"{text!r} does not begin with {' or '.join(schemes)}", param_hint=option)
    return Peer(name, key or name, "", 0.0, 0.0)


def _plain(decision: Decision, about: list[tuple[Rule, str]]) -> dict[str, object]:
    return {
        "allowed": decision.allowed,
        "rule": decision.rule.place if decision.rule else None,
        "why": decision.why,
        "considered": [{"rule": rule.place, "holds": not obstacle, "because": obstacle} for rule, obstacle in about],
    }


def _lines(decision: Decision, about: list[tuple[Rule, str]]) -> list[str]:
    lines = [f"allowed by {decision.rule.place}" if decision.rule is not None else f"DENIED: {decision.why}"]
    for rule, obstacle in about:
        lines.append(f"  {rule.place} " + (f"does not allow it: {obstacle}" if obstacle else "allows it"))
    return lines
