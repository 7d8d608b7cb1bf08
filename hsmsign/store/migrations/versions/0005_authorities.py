"""Certificate authorities: their versions, what they issued and revoked, their CRLs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There were none; and keys are found by their public keys."""
    op.create_index("versions_by_public_key", "versions", ["public_key"])
    _make_authorities()
    _make_certificates()
    _make_crls()
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="counters_pk"),
    )


def _make_authorities() -> None:
    op.create_table(
        "authorities",
        sa.Column("id", sa.String(63), nullable=False),
        sa.Column("primary_version", sa.Integer, nullable=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="authorities_pk"),
    )
    op.create_table(
        "authority_versions",
        sa.Column("authority", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("key_version", sa.String(96), nullable=False),
        sa.Column("scheme", sa.String(32), nullable=False),
        sa.Column("subject", sa.LargeBinary, nullable=False),
        sa.Column("public_key", sa.LargeBinary(1024), nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=True),
        sa.Column("certificate", sa.LargeBinary, nullable=True),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("crosses", sa.Text, nullable=False),
        sa.Column("wanted", sa.JSON, nullable=False),
        sa.Column("shards", sa.Integer, nullable=False),
        sa.Column("crl_number", sa.BigInteger, nullable=False),
        sa.Column("crl_claimed", sa.BigInteger, nullable=False),
        sa.Column("responder_key", sa.String(96), nullable=False),
        sa.Column("responder", sa.LargeBinary, nullable=True),
        sa.Column("latest", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("authority", "number", name="authority_versions_pk"),
        sa.ForeignKeyConstraint(["authority"], ["authorities.id"], name="authority_versions_authority_fk"),
        sa.UniqueConstraint("public_key", "subject", name="authority_versions_key_unique"),
    )


def _make_certificates() -> None:
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(40), nullable=False),
        sa.Column("authority", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("profile", sa.String(63), nullable=False),
        sa.Column("requester", sa.Text, nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("names", sa.JSON, nullable=False),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("not_after", sa.BigInteger, nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger, nullable=True),
        sa.Column("reason", sa.String(24), nullable=True),
        sa.Column("invalidity", sa.BigInteger, nullable=True),
        sa.Column("revoked_by", sa.Text, nullable=True),
        sa.Column("changed", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("serial", name="certificates_pk"),
        sa.ForeignKeyConstraint(
            ["authority", "version"],
            ["authority_versions.authority", "authority_versions.number"],
            name="certificates_version_fk",
        ),
        sa.UniqueConstraint("request_id", name="certificates_request_unique"),
    )
    op.create_index("certificates_by_creation", "certificates", ["created", "serial"])
    _make_partial("certificates_revoked", ["authority", "version", "shard", "serial"], "revoked IS NOT NULL")
    of_shard = ["authority", "version", "shard", "changed"]
    _make_partial("certificates_changed_of_shard", of_shard, "changed IS NOT NULL")
    _make_partial("certificates_pending", ["fingerprint"], "state = 'PENDING'")
    op.create_table(
        "spent_tokens",
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("serial", sa.String(40), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="spent_tokens_pk"),
    )
    op.create_index("spent_tokens_by_expiry", "spent_tokens", ["expires"])


def _make_partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "certificates", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _make_crls() -> None:
    op.create_table(
        "crls",
        sa.Column("authority", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("delta", sa.Boolean, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("this_update", sa.BigInteger, nullable=False),
        sa.Column("next_update", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("authority", "version", "shard", "delta", name="crls_pk"),
        sa.ForeignKeyConstraint(
            ["authority", "version"],
            ["authority_versions.authority", "authority_versions.number"],
            name="crls_version_fk",
        ),
    )
    op.create_table(
        "crl_parts",
        sa.Column("authority", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("authority", "version", "number", "part", name="crl_parts_pk"),
    )
