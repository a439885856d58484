"""Movie Masher: documents of users, which one needs which, files that users send."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Three tables more."""
    op.create_table(
        "documents",
        sa.Column("seq", _ID, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("icon", sa.Text),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("json", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("documents_id", "documents", ["kind", "id"], unique=True)
    op.create_index("documents_user", "documents", ["user", "kind", "seq"])
    op.create_table(
        "relations",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("parent", sa.Text, primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("child", sa.Text, nullable=False),
    )
    op.create_index("relations_child", "relations", ["kind", "child"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("extension", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger),
    )
    op.create_index("uploads_user", "uploads", ["user"])
