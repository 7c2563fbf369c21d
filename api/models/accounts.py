"""The accounts of a workspace, as the API shows them."""

from typing import Literal

from pydantic import Field

from api.models.answers import Shown
from api.models.holds import Hold


class Account(Shown):
    """An account that posts can be created for."""

    account_id: str = Field(examples=["acc_1a2b3c4d5e"])
    platform: Literal["tiktok", "instagram"]
    name: str = Field(examples=["Coffee, daily"])
    held: Hold | None = Field(description="its own hold, else that of the workspace; null: neither")


class AccountPage(Shown):
    """All of the workspace's accounts."""

    data: list[Account]
    has_more: Literal[False]
    next_cursor: None
