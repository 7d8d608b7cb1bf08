"""What applications behind TLS read: rules of their keeper, paths of strangers."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from hsmsign.tls.peer import Peer
from hsmsign.tls.reading import parse
from hsmsign.tls.rules import Call, Request

PEER = Peer("spiffe://example.org/green", "sha256:00", "", 0.0, 4e9)
RULES = parse('[[rule]]\npeers = ["*"]\nmethods = ["GET"]\npaths = ["/articles/**", "/v*/a"]', "rights.toml")


def rules(data: bytes) -> None:
    """A file that is taken decides, and allows nothing that is unclear."""
    found = parse(data.decode("utf-8", "replace"), "rights.toml")
    assert found.rules
    assert not found.decide(PEER, Request("GET", "/articles/../a")).allowed
    assert not found.decide(PEER, Call("/a.B//C")).allowed
    for rule in found.rules:
        for path in rule.paths:
            example = Request((rule.methods or ("GET",))[0], path.replace("*", "x"))
            if example.method != "WEBSOCKET" and rule.peers == ("*",):
                assert found.decide(PEER, example).allowed


def path(data: bytes) -> None:
    """What is allowed lies where its rule says, however it is read."""
    target = data.decode("latin-1")
    if not RULES.decide(PEER, Request.sent("GET", target)).allowed:
        return
    sent = target.partition("?")[0]
    for once in (unquote(sent), unquote(unquote(sent))):
        lies = posixpath.normpath(once)
        assert lies.startswith(("/articles", "/v")), (sent, lies)
        assert lies.rstrip("/") == once.rstrip("/")
        assert once.count("/") == sent.count("/")
