"""direct: no queue at all. What most would write first, and the fastest for one client: one commit, no hop."""

from fastapi import FastAPI, Response

from shared.domain.ids import new_id
from tests.benchmarks.peers import edit
from tests.benchmarks.peers.edge import ROUTE, Authenticated, Change, answer

app = FastAPI()


@app.patch(ROUTE, dependencies=[Authenticated])
def change_post(post_id: str, change: Change) -> Response:
    """`def`, so that FastAPI runs it in its thread pool, as its documentation says for blocking drivers."""
    return answer(edit.apply(new_id("edit"), post_id, change.caption))
