"""Replicas: further tokens that hold the key of a version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Versions that are there have none."""
    op.create_table(
        "replicas",
        sa.Column("key", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("backend", sa.String(63), nullable=False),
        sa.Column("locator", sa.LargeBinary(1024), nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("holds", sa.String(160), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", "number", "backend", name="replicas_pk"),
        sa.ForeignKeyConstraint(
            ["key", "number"], ["versions.key", "versions.number"], name="replicas_version_fk", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("holds", name="replicas_holds_unique"),
    )
