"""GET /v1/accounts: the accounts that posts can be created for."""

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from api.context import Here, Reader
from api.http import problems
from api.http.json_answer import JsonAnswer
from api.http.reading import NoQuery
from api.models.accounts import AccountPage
from shared.domain.holds import Hold
from shared.store import hold_lists
from shared.store import keys as keys_store
from shared.store.keys import Account

router = APIRouter(tags=["accounts"], responses=problems.LOCKED)


@router.get("/v1/accounts", response_model=AccountPage)
async def list_accounts(context: Here, key: Reader, _: NoQuery) -> Response:
    """The accounts that posts can be created for. A workspace has few: one page, in the shape of every list."""
    accounts, holds = await context.read(_listed, key.workspace_id)
    data = [
        {
            "accountId": account.id,
            "platform": account.platform,
            "name": account.name,
            "held": (hold := holds.get(account.id) or holds.get(None)) and hold.public(),
        }
        for account in accounts
    ]
    return JsonAnswer({"data": data, "hasMore": False, "nextCursor": None})


def _listed(tx: Connection, workspace_id: str) -> tuple[list[Account], dict[str | None, Hold]]:
    return keys_store.accounts_of(tx, workspace_id), hold_lists.of_accounts(tx, workspace_id)
