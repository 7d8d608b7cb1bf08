"""The tables. Plain SQL types only: SQLite and PostgreSQL both hold them.

A change here needs a migration in `migrations/versions`; a test holds the two against each other.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String(63), nullable=False),
    Column("algorithm", String(16), nullable=False),
    Column("backend", String(63), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("primary_version", Integer, nullable=True),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("established", Boolean, nullable=False),
    Column("purpose", JSON, nullable=True),
    Column("control", JSON, nullable=True),
    PrimaryKeyConstraint("id", name="keys_pk"),
)

versions = Table(
    "versions",
    metadata,
    Column("key", String(63), ForeignKey("keys.id", name="versions_key_fk", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("protection", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("object_id", LargeBinary(64), nullable=True),
    Column("locator", LargeBinary(1024), nullable=True),
    Column("public_key", LargeBinary(1024), nullable=True),
    Column("facts", JSON, nullable=False),
    Column("uri", Text, nullable=False),
    Column("adopted", Boolean, nullable=False),
    Column("holds", String(160), nullable=True),
    Column("keep_object", Boolean, nullable=False),
    Column("destroyed", BigInteger, nullable=True),
    PrimaryKeyConstraint("key", "number", name="versions_pk"),
    UniqueConstraint("holds", name="versions_holds_unique"),
    Index("versions_by_state", "state"),
    Index("versions_by_public_key", "public_key"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("key", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("backend", String(63), nullable=False),
    Column("locator", LargeBinary(1024), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("uri", Text, nullable=False),
    Column("holds", String(160), nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("key", "number", "backend", name="replicas_pk"),
    ForeignKeyConstraint(
        ["key", "number"], ["versions.key", "versions.number"], name="replicas_version_fk", ondelete="CASCADE"
    ),
    UniqueConstraint("holds", name="replicas_holds_unique"),
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(36), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("key", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    PrimaryKeyConstraint("id", name="requests_pk"),
    ForeignKeyConstraint(
        ["key", "number"], ["versions.key", "versions.number"], name="requests_version_fk", ondelete="CASCADE"
    ),
    Index("requests_by_version", "key", "number"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String(32), nullable=False),
    Column("key", String(63), nullable=False),
    Column("operation", String(16), nullable=False),
    Column("requester", Text, nullable=False),
    Column("names", JSON, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("summary", Text, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Column("required", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("decisions", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="approvals_pk"),
    Index("approvals_by_fingerprint", "fingerprint"),
    Index("approvals_by_expiry", "expires"),
)
