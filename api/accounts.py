"""GET /v1/accounts: the accounts that posts can be created for."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.context import Here, Reader
from api.http import pagination, reading
from shared.store import keys as keys_store

router = APIRouter()


@router.get("/v1/accounts")
async def list_accounts(request: Request, context: Here, key: Reader) -> Response:
    """All of the workspace's accounts, the oldest first. A workspace has few: one page, in the shape of every list."""
    reading.check_query(request)
    accounts = await context.read(keys_store.accounts_of, key.workspace_id)
    data = [{"accountId": account.id, "platform": account.platform, "name": account.name} for account in accounts]
    return pagination.answer({"data": data, "hasMore": False, "nextCursor": None})
