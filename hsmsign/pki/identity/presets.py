"""What is known of the tokens of each platform, as it documents them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hsmsign.pki.identity.issuers import Kind, NameTemplates


@dataclass(frozen=True, slots=True)
class Preset:
    """What a configuration of this kind need not say."""

    issuer: str = ""
    jwks_url: str = ""
    claims: dict[str, str] = field(default_factory=dict)
    """Fields of templates, and the paths of their claims."""
    names: NameTemplates = field(default_factory=NameTemplates)
    max_age_seconds: int = 3600
    narrowed_by: tuple[str, ...] = ()
    """Everybody in the world gets tokens of this issuer: one of these fields has to be required."""


def _same(prefix: str, *fields: str) -> dict[str, str]:
    return {one: prefix + one for one in fields}


_GCE = Preset(
    # cloud.google.com/compute/docs/instances/verifying-instance-identity: only tokens of format=full say all this
    issuer="https://accounts.google.com",
    jwks_url="https://www.googleapis.com/oauth2/v3/certs",
    claims={
        **_same("", "sub", "email"),
        **_same("google.compute_engine.", "instance_id", "instance_name", "project_id", "project_number", "zone"),
    },
    narrowed_by=("project_id", "project_number", "instance_id", "sub", "email"),
)
_KUBERNETES = Preset(
    # kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin: tokens that are bound to a pod; the node
    # is there since 1.30
    claims={
        "sub": "sub",
        "namespace": '"kubernetes.io".namespace',
        "service_account": '"kubernetes.io".serviceaccount.name',
        "service_account_uid": '"kubernetes.io".serviceaccount.uid',
        "pod": '"kubernetes.io".pod.name',
        "pod_uid": '"kubernetes.io".pod.uid',
        "node": '"kubernetes.io".node.name',
    },
)
_GITHUB = Preset(
    # docs.github.com/en/actions/reference/security/oidc
    issuer="https://token.actions.githubusercontent.com",
    jwks_url="https://token.actions.githubusercontent.com/.well-known/jwks",
    claims=_same(
        "",
        *("sub", "actor", "actor_id", "base_ref", "environment", "event_name", "head_ref", "job_workflow_ref"),
        *("ref", "ref_protected", "ref_type", "repository", "repository_id", "repository_owner"),
        *("repository_owner_id", "repository_visibility", "run_attempt", "run_id", "run_number"),
        *("runner_environment", "sha", "workflow", "workflow_ref", "workflow_sha"),
    ),
    narrowed_by=("repository", "repository_id", "repository_owner", "repository_owner_id", "sub", "job_workflow_ref"),
)
_SPIFFE = Preset(
    # github.com/spiffe/spiffe, standards/JWT-SVID.md: iat is not among what has to be there
    claims={"sub": "sub"},
    names=NameTemplates(uri=("{sub}",)),
    max_age_seconds=0,
)
_OIDC = Preset(claims={"sub": "sub"})

PRESETS = {
    Kind.GCE: _GCE,
    Kind.KUBERNETES: _KUBERNETES,
    Kind.GITHUB: _GITHUB,
    Kind.SPIFFE: _SPIFFE,
    Kind.OIDC: _OIDC,
}
