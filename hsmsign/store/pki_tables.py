"""The tables of the certificate authority. Times are seconds since 1970 where certificates say them, else microseconds.

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
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from hsmsign.store import tables

metadata = tables.metadata

authorities = Table(
    "authorities",
    metadata,
    Column("id", String(63), nullable=False),
    Column("primary_version", Integer, nullable=True),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    PrimaryKeyConstraint("id", name="authorities_pk"),
)

authority_versions = Table(
    "authority_versions",
    metadata,
    Column(
        "authority", String(63), ForeignKey("authorities.id", name="authority_versions_authority_fk"), nullable=False
    ),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("key_version", String(96), nullable=False),
    Column("scheme", String(32), nullable=False),
    Column("subject", LargeBinary, nullable=False),
    Column("public_key", LargeBinary(1024), nullable=False),
    Column("request", LargeBinary, nullable=True),
    Column("certificate", LargeBinary, nullable=True),
    Column("chain", Text, nullable=False),
    Column("crosses", Text, nullable=False),
    Column("wanted", JSON, nullable=False),
    Column("shards", Integer, nullable=False),
    Column("crl_number", BigInteger, nullable=False),
    Column("crl_claimed", BigInteger, nullable=False),
    Column("responder_key", String(96), nullable=False),
    Column("responder", LargeBinary, nullable=True),
    Column("latest", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("authority", "number", name="authority_versions_pk"),
    UniqueConstraint("public_key", "subject", name="authority_versions_key_unique"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), nullable=False),
    Column("authority", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("state", String(8), nullable=False),
    Column("profile", String(63), nullable=False),
    Column("requester", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("names", JSON, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("request_id", String(36), nullable=True),
    Column("fingerprint", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("revoked", BigInteger, nullable=True),
    Column("reason", String(24), nullable=True),
    Column("invalidity", BigInteger, nullable=True),
    Column("revoked_by", Text, nullable=True),
    Column("changed", BigInteger, nullable=True),
    PrimaryKeyConstraint("serial", name="certificates_pk"),
    ForeignKeyConstraint(
        ["authority", "version"],
        ["authority_versions.authority", "authority_versions.number"],
        name="certificates_version_fk",
    ),
    UniqueConstraint("request_id", name="certificates_request_unique"),
    Index("certificates_by_creation", "created", "serial"),
)
# Only of the few that are concerned: an index costs every certificate that is issued.
Index(
    "certificates_revoked",
    certificates.c.authority,
    certificates.c.version,
    certificates.c.shard,
    certificates.c.serial,
    sqlite_where=certificates.c.revoked.is_not(None),
    postgresql_where=certificates.c.revoked.is_not(None),
)
Index(
    "certificates_changed_of_shard",
    certificates.c.authority,
    certificates.c.version,
    certificates.c.shard,
    certificates.c.changed,
    sqlite_where=certificates.c.changed.is_not(None),
    postgresql_where=certificates.c.changed.is_not(None),
)
Index(
    "certificates_pending",
    certificates.c.fingerprint,
    sqlite_where=certificates.c.state == "PENDING",
    postgresql_where=certificates.c.state == "PENDING",
)

spent_tokens = Table(
    "spent_tokens",
    metadata,
    Column("fingerprint", String(64), nullable=False),
    Column("serial", String(40), nullable=False),
    Column("expires", BigInteger, nullable=False),
    PrimaryKeyConstraint("fingerprint", name="spent_tokens_pk"),
    Index("spent_tokens_by_expiry", "expires"),
)

crls = Table(
    "crls",
    metadata,
    Column("authority", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("delta", Boolean, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("this_update", BigInteger, nullable=False),
    Column("next_update", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    PrimaryKeyConstraint("authority", "version", "shard", "delta", name="crls_pk"),
    ForeignKeyConstraint(
        ["authority", "version"],
        ["authority_versions.authority", "authority_versions.number"],
        name="crls_version_fk",
    ),
)

crl_parts = Table(
    "crl_parts",
    metadata,
    Column("authority", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("part", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("authority", "version", "number", "part", name="crl_parts_pk"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), nullable=False),
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", name="counters_pk"),
)
