"""Whatever reads the bytes of a stranger is one of those that the tests beside this one know."""

import re

from api.http import authentication
from tests.test_house import PRODUCT


def test_what_is_named_here_is_what_there_is() -> None:
    """Whatever reads a header or a JSON of its own stands in these files; one more belongs into the tables."""
    headers = {
        name for name, source in PRODUCT.items() if re.search(r"\.headers\.get(list)?\(|scope\[\"headers\"\]", source)
    }
    assert {name for name in headers if name.startswith("api/")} == {
        *(
            "api/http/authentication.py",
            "api/http/request_id.py",
            "api/http/headers.py",
            "api/metrics.py",
            "api/ops/access.py",
        ),
        *(
            "api/ops/frame.py",
            "api/posts.py",
            "api/http/proxies.py",
            "api/http/reading.py",
            "api/reschedule_results.py",
        ),
    }
    assert authentication.READ
    parsers = re.compile(r"\bjson\.(loads|JSONDecoder)\(|\bfrom_json\(|csv\.reader\(")
    parsed = {name for name, source in PRODUCT.items() if parsers.search(source)}
    assert parsed == {
        *("api/http/cursors.py", "api/http/reading.py", "shared/domain/service_answers.py", "shared/cli/places.py"),
        *(
            "shared/cli/reschedule_csv.py",
            "shared/cli/reschedule_journal.py",
            "shared/local/datadir.py",
            "shared/broker/celery_message.py",
            "shared/broker/metric_snapshots.py",
        ),
        "shared/broker/answers.py",
        "shared/broker/doorbells.py",
        "api/submission/together.py",  # what it wrote itself under an Idempotency-Key
    }
