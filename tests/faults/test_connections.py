"""Row 24: hostile connections. Each kind alone, and nginx, are tested in tests/api/http/connections."""

import pytest

from tests.api.http.connections.against import MEBIBYTE, against, large_pages
from tests.api.http.connections.hostile import PEERS

LONG = 600


@pytest.mark.faults
def test_row_24_ten_minutes_of_hostile_connections_leave_memory_and_files_as_they_were(
    database_url: str, redis_url: str
) -> None:
    each = 20
    with large_pages(database_url, redis_url) as stack:
        assert stack.api is not None
        _, watched = against(stack, stack.api, seconds=LONG, each=each, beat=1.0)
    half = len(watched.files) // 2
    assert max(watched.files) < 2 * each * len(PEERS) + 100
    # What the first five minutes needed is enough for the next five.
    assert max(watched.files[half:]) <= max(watched.files[:half]) + 20
    assert max(watched.memory[half:]) <= max(watched.memory[:half]) + 16 * MEBIBYTE
    assert max(watched.memory) - watched.memory[0] < 300 * MEBIBYTE
