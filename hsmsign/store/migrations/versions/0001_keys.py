"""Keys, their versions, and the requests that made them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String(63), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("backend", sa.String(63), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("primary_version", sa.Integer, nullable=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("established", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="keys_pk"),
    )
    op.create_table(
        "versions",
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("protection", sa.String(16), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("object_id", sa.LargeBinary(64), nullable=True),
        sa.Column("locator", sa.LargeBinary(512), nullable=True),
        sa.Column("public_key", sa.LargeBinary(1024), nullable=True),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("adopted", sa.Boolean, nullable=False),
        sa.Column("holds", sa.String(160), nullable=True),
        sa.Column("keep_object", sa.Boolean, nullable=False),
        sa.Column("destroyed", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("key", "number", name="versions_pk"),
        sa.ForeignKeyConstraint(["key"], ["keys.id"], name="versions_key_fk", ondelete="CASCADE"),
        sa.UniqueConstraint("holds", name="versions_holds_unique"),
    )
    op.create_index("versions_by_state", "versions", ["state"])
    op.create_table(
        "requests",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="requests_pk"),
        sa.ForeignKeyConstraint(
            ["key", "number"], ["versions.key", "versions.number"], name="requests_version_fk", ondelete="CASCADE"
        ),
    )
    op.create_index("requests_by_version", "requests", ["key", "number"])
