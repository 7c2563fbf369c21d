"""The tables' metadata, and columns and checks that several tables have."""

from sqlalchemy import Column, DateTime, MetaData, text

from shared.domain.lifecycle import ClaimKind, EditStatus, Status

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NOW = text("now()")


def one_of(column: str, values: type[Status] | type[ClaimKind] | type[EditStatus]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


def instant(name: str, *, required: bool = False, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not (required or now), server_default=NOW if now else None)
