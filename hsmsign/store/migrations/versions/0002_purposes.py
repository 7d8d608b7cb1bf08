"""What a key is for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keys that are there are for anything. (A plain ADD COLUMN: SQLite would have to make the table anew for
    more, and all versions would go with the old one.)"""
    op.add_column("keys", sa.Column("purpose", sa.JSON, nullable=True))
