"""The figures: counted once, carried from workers to the scrape, and known to the dashboard and the alert rules."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from shared import task_names
from shared.broker import metric_snapshots, redis_connection, worker_metrics
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult, QueuedEdit
from shared.store import gauges
from shared.telemetry import metrics
from tests import factories

DOCS = Path(__file__).parents[3] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((DOCS / "alerts.yml").read_text())
OF_THE_SCRAPE = {  # made by api/metrics.py at scrape time; tests/api/test_metrics.py sees them all there
    "redraft_scrape_up": {"source"},
    "redraft_worker_processes": {"queue"},
    "redraft_queue_messages": {"queue"},
    "redraft_queue_unacknowledged": set(),
    "redraft_waiting_requests": set(),
    "redraft_event_loop_lag_seconds": set(),
    "redraft_log_lines_left_out_total": set(),
    "redraft_unrecorded_requests": set(),
    "redraft_api_connections": set(),
    "redraft_api_connections_most": set(),
    "redraft_api_code": {"version", "code"},
    "redraft_api_clock_skew_seconds": set(),
    "redraft_redis_takes_writes": set(),
    "redraft_redis_saving_fails": set(),
    "redraft_redis_memory_share": set(),
}


def sample(name, **labels):
    return metrics.WORKER.get_sample_value(name, labels) or metrics.API.get_sample_value(name, labels) or 0.0


@pytest.fixture
def redis_here(monkeypatch, redis_url):
    monkeypatch.setenv("REDRAFT_REDIS_URL", redis_url)
    factories.forget_caches()
    yield
    factories.forget_caches()


def worker(name, place=0):
    process = worker_metrics._Worker()
    process.name, process.place = name, place
    return process


def of_workers():
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in worker_metrics.of_workers()
        for sample in family.samples
    }


def test_edits_are_counted_by_their_end_with_their_age_and_their_wait():
    accepted = datetime(2026, 1, 1, tzinfo=UTC)
    read = [
        QueuedEdit("edit_1", 1, "post_1", {}, None, accepted, 0, "tests", 0, 2, accepted + timedelta(seconds=2)),
        QueuedEdit("edit_2", 2, "post_1", {}, None, accepted, 0, "tests", 0, 2, accepted + timedelta(seconds=2)),
    ]
    ends = [
        EditResult("edit_1", EditStatus.APPLIED, 2, lock_wait_ms=30),
        EditResult("edit_2", EditStatus.REJECTED, 2, error_code="cannot_edit", lock_wait_ms=0),
    ]
    names = ("redraft_edit_seconds_sum", "redraft_edit_seconds_count", "redraft_lock_wait_seconds_sum")
    before = [sample(name) for name in names]
    applied = sample("redraft_edits_total", outcome="applied")
    metrics.edits_finalized(ends, read, began=10.0, finished_at=10.5)
    assert [round(sample(name) - was, 6) for name, was in zip(names, before, strict=True)] == [5.0, 2, 0.03]
    assert sample("redraft_edits_total", outcome="applied") == applied + 1


def test_an_edit_that_failed_unread_is_counted_without_an_age():
    before = sample("redraft_edit_seconds_count"), sample("redraft_edits_total", outcome="failed")
    unread = EditResult("edit_x", EditStatus.FAILED, error_code="internal")
    metrics.edits_finalized([unread], [], began=0, finished_at=1)
    after = sample("redraft_edit_seconds_count"), sample("redraft_edits_total", outcome="failed")
    assert after == (before[0], before[1] + 1)


def test_a_publish_before_its_time_by_a_clocks_breadth_is_not_late():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    before = sample("redraft_publish_lateness_seconds_sum")
    metrics.publishes_claimed([at, at + timedelta(seconds=1), at - timedelta(seconds=3)], at)
    assert sample("redraft_publish_lateness_seconds_sum") == before + 3


def test_a_task_is_counted_with_the_counts_that_it_returns():
    run = metrics.counted(task_names.POSTS_PUBLISH, lambda: {"done": 3, "early": 1, "chunk": "words are no counts"})
    done = sample("redraft_publishes_total", outcome="done")
    tasks = sample("redraft_tasks_total", task=task_names.POSTS_PUBLISH, outcome="done")
    run()
    assert sample("redraft_publishes_total", outcome="done") == done + 3
    assert sample("redraft_publishes_total", outcome="chunk") == 0
    assert sample("redraft_tasks_total", task=task_names.POSTS_PUBLISH, outcome="done") == tasks + 1


@pytest.mark.parametrize(("result", "outcome"), [({"put_off": "OperationalError"}, "put_off"), (KeyError, "failed")])
def test_a_task_that_did_not_do_its_work_is_counted_apart(result, outcome):
    def run():
        if isinstance(result, dict):
            return result
        raise result

    before = sample("redraft_tasks_total", task=task_names.OPS_RESCUE, outcome=outcome)
    with suppress(KeyError):
        metrics.counted(task_names.OPS_RESCUE, run)()
    assert sample("redraft_tasks_total", task=task_names.OPS_RESCUE, outcome=outcome) == before + 1


def test_outcomes_cannot_make_series_without_end():
    words = iter(range(1000))
    run = metrics.counted(task_names.WEBHOOKS_DELIVER, lambda: {f"made_up_{next(words)}": 1})
    for _ in range(1000):
        run()
    [collected] = metrics.RESULTS[task_names.WEBHOOKS_DELIVER].collect()
    made = [one for one in collected.samples if "made_up" in str(one.labels)]
    assert len(made) == metrics._OUTCOMES_AT_MOST


def test_every_task_that_counts_has_a_counter():
    assert set(metrics.RESULTS) | {task_names.EDITS_APPLY} == set(task_names.QUEUE_OF)


@pytest.mark.usefixtures("redis_here")
def test_the_figures_of_workers_are_found_by_whoever_shares_their_redis():
    worker("edits@one", 0).write()
    worker("edits@one", 1).write()
    worker("publish@two").write()
    found = of_workers()
    assert found["redraft_worker_processes", ("queue", "edits")] == 2
    assert found["redraft_worker_processes", ("queue", "publish")] == 1
    assert found["redraft_worker_processes", ("queue", "render")] == 0
    assert ("redraft_edit_seconds_count", ("place", "1"), ("worker", "edits@one")) in found


@pytest.mark.usefixtures("redis_here")
def test_a_process_that_takes_a_dead_ones_place_goes_on_in_its_series():
    place = worker("ops@here")
    place.write()
    series = {name for name in of_workers() if ("worker", "ops@here") in name}
    worker("ops@here").write()
    assert {name for name in of_workers() if ("worker", "ops@here") in name} == series


@pytest.mark.usefixtures("redis_here")
def test_a_worker_that_is_gone_is_forgotten():
    worker("edits@gone").write()
    assert of_workers()["redraft_worker_processes", ("queue", "edits")] == 1
    client = redis_connection.client()
    assert 0 < client.ttl(f"{metric_snapshots.NAMES}:edits@gone/0") <= metric_snapshots.KEPT_FOR
    client.delete(f"{metric_snapshots.NAMES}:edits@gone/0")  # as Redis does by itself after that
    assert of_workers()["redraft_worker_processes", ("queue", "edits")] == 0
    assert client.scard(metric_snapshots.NAMES) == 0


@pytest.mark.usefixtures("redis_here")
def test_a_worker_that_ends_writes_once_more():
    process = worker("bulk@here")
    process.begin(0)
    dispatched = metrics.RESULTS[task_names.POSTS_DISPATCH_DUE].labels("enqueued")
    dispatched.inc(17)
    process.end()
    name = ("redraft_dispatched_total", ("outcome", "enqueued"), ("place", "0"), ("worker", "bulk@here"))
    assert of_workers()[name] == dispatched._value.get()


def known():
    """Every series there can be: name -> its labels."""
    found = {name: set(labels) for name, labels in OF_THE_SCRAPE.items()}
    found |= {gauge.name: {gauge.label} - {""} for gauge in gauges.GAUGES.values()}
    for registry in (metrics.API, metrics.WORKER):
        for collector in set(registry._collector_to_names):
            for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
                labels = set(getattr(collector, "_labelnames", ()))
                labels |= {"worker", "place"} if registry is metrics.WORKER else set()
                kind = metric.type
                names = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(kind, [""])
                for ending in names:
                    found[metric.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_dashboard_and_alerts_ask_only_for_series_that_exist(where, expr):
    series = known()
    asked = re.findall(r"\bredraft_\w+", expr)
    assert asked, where
    assert set(asked) <= set(series), where
    labels = set().union(*(series[name] for name in asked))
    used = set(re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", expr))
    for group in re.findall(r"(?:by|without) \(([^)]*)\)", expr):
        used |= {label.strip() for label in group.split(",")}
    assert used <= labels, where
    assert expr.count("(") == expr.count(")"), where


def test_no_figure_of_rows_is_left_without_a_panel():
    drawn = " ".join(expr for _, expr in expressions())
    assert [name for name in gauges.GAUGES if not re.search(rf"\b{name}\b", drawn)] == []


def test_figures_that_every_api_shows_are_never_summed_over_apis():
    """Rows and workers are the same on every API: a sum would count them once for each."""
    shared = set(gauges.GAUGES) | {"redraft_worker_processes", "redraft_queue_messages"}
    shared |= {name for name, labels in known().items() if "worker" in labels}
    for where, expr in expressions():
        for name in re.findall(r"\bredraft_\w+", expr):
            if name in shared:
                ahead = expr[: expr.index(name)]
                assert re.search(r"(max|min)( by \([^)]*\))? \((rate\()?$|(max|min)\($", ahead), (where, expr)


def test_every_queue_and_every_late_publish_has_an_alert_that_comes_before_it():
    before = next(group for group in ALERTS["groups"] if group["name"] == "redraft-before-a-publish-is-late")
    asked = " ".join(rule["expr"] for rule in before["rules"])
    for name in ("posts_unsent", "worker_processes", "queue_messages", "posts_unrendered", "oldest_edit_seconds"):
        assert f"redraft_{name}" in asked
    for rule in (rule for group in ALERTS["groups"] for rule in group["rules"]):
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
    # Half of dispatch's horizon is 30 s: an alert that waits as long as that would come with the lateness.
    unsent = next(rule for rule in before["rules"] if rule["alert"] == "RedraftPostsUnsent")
    assert "for" not in unsent


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_a_process_is_dead_if_its_pid_is_gone_or_its_worker_has_begun_anew_and_others_are_not_known() -> None:
    worker, run, pid = worker_metrics.process_name().rsplit("/", 2)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    known: dict[str, bool | None] = {
        f"{worker}/{run}/{pid}": False,
        f"{worker}/{run}/{gone.pid}": True,
        f"{worker}/another/{pid}": True,
        f"edits@elsewhere/{run}/{gone.pid}": None,
        f"{worker}/{run}/": None,
        f"{worker}/{run}/-1": None,
        f"{worker}/{run}/{'9' * 40}": None,
        "": None,
        "nonsense": None,
    }
    assert {name: worker_metrics.is_dead(name) for name in known} == known


def test_each_worker_that_begins_is_a_run_of_its_own_even_in_forks_of_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_metrics, "_worker", worker_metrics._Worker())
    names = []
    for _ in range(2):
        worker_metrics._named(sender="edits@here")
        names.append(worker_metrics.process_name())
    assert names[0] != names[1]
    assert worker_metrics.is_dead(names[0])


@pytest.mark.usefixtures("redis_here")
@pytest.mark.parametrize(
    "strange", [b"x", b'"x"', b"[[1]]", b"7", b'[["a", [["b", {}, "no number"]]]]', b'[["a", [["b", 1, 2]]]]', b"\xff"]
)
def test_what_a_stranger_left_among_the_snapshots_hides_no_other(strange):
    client = redis_connection.client()
    worker("edits@here").write()
    client.sadd(metric_snapshots.NAMES, "api@here:8000/1")
    client.set(f"{metric_snapshots.NAMES}:api@here:8000/1", strange)
    assert [name for name, _ in metric_snapshots.read()] == ["edits@here/0"]
