"""GET /v1/accounts: the accounts that posts can be created for."""

from fastapi import APIRouter
from starlette.responses import Response

from api.context import Here, Reader
from api.http import problems
from api.http.json_answer import JsonAnswer
from api.http.reading import NoQuery
from api.models.answers import AccountPage
from shared.store import keys as keys_store

router = APIRouter(tags=["accounts"], responses=problems.LOCKED)


@router.get("/v1/accounts", response_model=AccountPage)
async def list_accounts(context: Here, key: Reader, _: NoQuery) -> Response:
    """The accounts that posts can be created for. A workspace has few: one page, in the shape of every list."""
    accounts = await context.read(keys_store.accounts_of, key.workspace_id)
    data = [{"accountId": account.id, "platform": account.platform, "name": account.name} for account in accounts]
    return JsonAnswer({"data": data, "hasMore": False, "nextCursor": None})
