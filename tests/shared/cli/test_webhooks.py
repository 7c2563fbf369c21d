"""`redraft webhooks`: how far the receiver is behind, each event's tries, and sending events again."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.cli import webhooks as command
from shared.cli import workspaces
from shared.domain.service_answers import Reply
from shared.store import webhook_resends
from tests.shared.cli.typed import Typed
from tests.worker.fake_services import FakeServices, fake_services
from tests.worker.receiver import deliver, engine, events, told

__all__ = ["engine", "fake_services"]
AWAY = Reply("server_error", message="Down for maintenance", status=503)


redraft = Typed(command.app)
answer = redraft.as_json


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    posts: list[str] = []
    monkeypatch.setattr(queue, "ring_webhooks", posts.extend)
    return posts


def dead(engine: Engine, *posts: str) -> list[str]:
    told(engine, *posts)
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET status = 'dead', finished_at = clock_timestamp()"))
    return [event.id for event in events(engine)]


def test_status_says_what_waits_and_what_was_answered_last(engine: Engine, fake_services: FakeServices) -> None:
    assert redraft("status").output == "There are no webhook events.\n"
    told(engine, "post_1")
    fake_services.replies = [AWAY]
    deliver("post_1")
    shown = redraft("status").output
    assert "503: Down for maintenance, just now" in shown
    [said] = answer("status")
    assert said.pop("oldestAt").endswith("Z")
    assert said.pop("lastAnswer").items() >= {"outcome": "server_error", "status": 503}.items()
    assert said == {
        "workspaceId": "ws_test", "workspace": "ws_test", "queued": 1, "dead": 0, "countedUpTo": 10_000,
        "tookSeconds": None,
    }  # fmt: skip


def test_list_and_show_tell_of_each_event_and_each_try(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1", "post_2")
    fake_services.replies = [AWAY]
    deliver("post_1")
    (first, second) = (event.id for event in events(engine))
    assert redraft("list").output == "There are no dead events.\n"
    assert [one["eventId"] for one in answer("list", "--status", "queued")] == [first, second]
    assert "There are more than 1" in redraft("list", "--status", "queued", "--limit", "1").output
    shown = redraft("show", first).output
    assert "1 try, the newest first:" in shown
    assert "503: Down for maintenance" in shown
    said = answer("show", first)
    assert [(one["number"], one["status"], one["message"]) for one in said["log"]] == [(1, 503, "Down for maintenance")]
    assert redraft("show", "evt_gone").exit_code == 2


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_fits_the_terminal_with_its_ids_whole(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    told(engine, "post_1")
    fake_services.replies = [Reply("never_started", message="certificate verify failed: self-signed certificate")]
    deliver("post_1")
    for module in (command, workspaces):
        monkeypatch.setattr(module, "screen_width", lambda: width)
    for arguments in (("list", "--status", "queued"), ("status",)):
        shown = redraft(*arguments).output
        assert max(map(len, shown.splitlines())) <= width
    shown = redraft("list", "--status", "queued").output
    assert events(engine)[0].id in shown
    assert ("post_1" in shown) == (width == 120)


def test_one_event_is_sent_again_after_a_question(engine: Engine, rung: list[str]) -> None:
    (event_id,) = dead(engine, "post_1")
    assert redraft("resend", event_id, says="n\n").exit_code == 1
    assert (events(engine)[0].status, rung) == ("dead", [])
    done = redraft("resend", event_id, "--by", "kim", says="y\n")
    assert (done.exit_code, "1 of 1 event is queued again." in done.output) == (0, True)
    assert (events(engine)[0].status, rung) == ("queued", ["post_1"])
    assert answer("show", event_id)["acts"][0]["by"] == "kim"
    # It waits by now: a second command does nothing, and says so.
    again = redraft("resend", event_id, "evt_gone", "--yes", "--json")
    assert again.exit_code == 1
    assert {one["why"] for one in json.loads(again.stdout)} == {"queued_already", "no_such_event"}


def test_all_since_a_time_are_sent_again_with_the_count_first(
    engine: Engine, rung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_resends, "LOOKED_AT", 2)
    dead(engine, *(f"post_{number}" for number in range(5)))
    asked = redraft("resend", "--since", "2020-01-01T00:00Z", "--workspace", "ws_test", says="n\n")
    assert "0 delivered and 5 dead events ended in that time.\nSend 5 events again?" in asked.output
    assert rung == []
    done = redraft("resend", "--since", "2020-01-01T00:00Z", "--status", "dead", "--yes")
    assert done.output.endswith("5 events are queued again.\n")
    assert rung == [f"post_{number}" for number in range(5)]
    assert answer("resend", "--since", "2020-01-01T00:00Z", "--yes")["resent"] == 0


def test_a_resend_that_is_stopped_says_how_to_go_on(
    engine: Engine, rung: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_resends, "LOOKED_AT", 2)
    dead(engine, *(f"post_{number}" for number in range(5)))
    step, steps = webhook_resends.resend_step, []

    def stopping(*given: Any) -> Any:
        steps.append(given)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return step(*given)

    with monkeypatch.context() as patch:
        patch.setattr(webhook_resends, "resend_step", stopping)
        stopped = redraft("resend", "--since", "2020-01-01T00:00Z", "--yes")
    assert stopped.exit_code != 0
    until = stopped.output.split("--until ")[1].split()[0]
    assert rung == ["post_0", "post_1"]
    # The first two have been delivered meanwhile, and are not sent a third time.
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET status = 'delivered', finished_at = now() WHERE status = 'queued'"))
    assert answer("resend", "--since", "2020-01-01T00:00Z", "--until", until, "--yes")["resent"] == 3


def test_a_full_queue_is_not_rung(engine: Engine, rung: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "free_capacity", lambda _: 0)
    (event_id,) = dead(engine, "post_1")
    assert redraft("resend", event_id, "--yes").exit_code == 0
    assert (events(engine)[0].status, rung) == ("queued", [])


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("evt_1", "--since", "2020-01-01T00:00Z"),
        ("evt_1", "--workspace", "ws_test"),
        ("--since", "yesterday", "--yes"),
        ("--since", "2020-01-01T00:00Z", "--status", "queued"),
        ("--since", "2020-01-01T00:00Z", "--workspace", "nobody", "--yes"),
        ("--since", "2020-01-01T00:00Z", "--json"),
    ],
)
def test_a_resend_that_does_not_say_what_it_means_is_refused(engine: Engine, arguments: tuple[str, ...]) -> None:
    dead(engine, "post_1")
    assert redraft("resend", *arguments).exit_code == 2
    assert events(engine)[0].status == "dead"
