"""Many edits at once: chosen by a filter, requeued and discarded as single ones are, part by part."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain import requeues
from shared.store import acts, mending, operator_actions, webhooks
from shared.store.acts import Actor
from shared.store.db import transaction
from shared.store.edit_lists import EditFilter
from shared.store.mending import Mended
from tests import factories
from tests.factories import FAILED
from worker import apply

KIM = Actor("kim")


def post(engine: Engine, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, **columns)


def edit(engine: Engine, post_id: str, caption: str, state: str = FAILED) -> str:
    with engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, {"caption": caption})
        if state:
            tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


def chosen(wanted: EditFilter | None = None) -> list[str]:
    with transaction() as tx:
        return mending.choose(tx, wanted or EditFilter(), 1000).ids


def marks(ids: list[str]) -> dict[str, str | None]:
    with transaction() as tx:
        return {one.edit.id: one.mark for one in mending.prospects(tx, ids)}


def requeue(seen: dict[str, str | None]) -> Mended:
    with transaction() as tx:
        return mending.requeue(tx, seen, KIM)


def statuses(engine: Engine, ids: list[str]) -> list[str]:
    return [factories.row(engine, "edits", one).status for one in ids]


def test_requeued_edits_keep_their_order_and_come_behind_what_waits(engine: Engine) -> None:
    homes = [post(engine) for _ in range(3)]
    ids = [edit(engine, homes[number % 3], f"caption {number}") for number in range(12)]
    waiting = edit(engine, homes[0], "waiting", "")
    assert chosen() == ids
    done = requeue(marks(ids))
    assert (done.done, done.left, sorted(done.posts)) == (ids, [], sorted(homes))
    seqs = [factories.row(engine, "edits", one).seq for one in [waiting, *ids]]
    assert seqs == sorted(seqs)
    apply.apply_edits(homes)
    assert set(statuses(engine, ids)) == {"applied"}
    assert [factories.row(engine, "posts", home).caption for home in homes] == [f"caption {n}" for n in (9, 10, 11)]


def test_who_did_it_and_what_stood_there_is_kept_as_for_a_single_edit(engine: Engine) -> None:
    home = post(engine)
    single, together = edit(engine, home, "a"), edit(engine, home, "b")
    unwanted, unwanted_too = edit(engine, home, "c"), edit(engine, home, "d")
    with transaction() as tx:
        operator_actions.requeue(tx, single, KIM)
        operator_actions.discard(tx, unwanted, KIM)
    requeue({together: None})
    with transaction() as tx:
        mending.discard(tx, {unwanted_too: "failed"}, KIM)
    with transaction() as tx:
        kept = {one: acts.of(tx, one, 10) for one in (single, together, unwanted, unwanted_too)}
    assert {one: [act.words() for act in done] for one, done in kept.items()} == {
        single: ["requeued by kim; before: failed, internal (x)"],
        together: ["requeued by kim; before: failed, internal (x)"],
        unwanted: ["discarded by kim; before: failed, internal (x)"],
        unwanted_too: ["discarded by kim; before: failed, internal (x)"],
    }
    assert kept[single][0].before.keys() == kept[together][0].before.keys()


def test_an_edit_of_which_something_else_is_true_now_is_left_as_it_is(engine: Engine) -> None:
    """Its post was edited, or it was requeued, between the question and the answer."""
    homes = [post(engine) for _ in range(4)]
    same, overtaken, ended, unread = (edit(engine, home, "mine") for home in homes)
    seen = marks([same, overtaken, ended, unread])
    edit(engine, homes[1], "came in between", "")
    with transaction() as tx:
        operator_actions.discard(tx, ended, KIM)
    done = requeue(seen | {unread: None})
    assert (done.done, done.left) == ([same, unread], sorted([overtaken, ended]))
    assert statuses(engine, [same, overtaken, ended, unread]) == ["queued", "failed", "rejected", "queued"]


def test_a_post_that_is_locked_elsewhere_delays_its_own_edits_only(engine: Engine) -> None:
    free, contended = post(engine), post(engine)
    ids = [edit(engine, free, "a"), edit(engine, contended, "b")]
    for act in (lambda: requeue(marks(ids)), lambda: requeue(marks(ids))):
        with engine.begin() as other:
            other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": contended})
            done = act()
        assert ids[1] in done.left
    assert statuses(engine, ids) == ["queued", "failed"]
    # Begun again, it does what was left.
    assert requeue(marks(chosen())).done == [ids[1]]


def test_what_was_done_before_an_interruption_stays_done_and_the_rest_is_done_when_begun_again(engine: Engine) -> None:
    ids = [edit(engine, post(engine), "a") for _ in range(10)]
    with transaction() as tx:
        first, second = requeues.chunks(mending.prospects(tx, ids), 5)
    requeue({one.edit.id: one.mark for one in first})

    def dies() -> None:
        with transaction() as tx:
            mending.requeue(tx, {one.edit.id: one.mark for one in second}, KIM)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dies()
    assert statuses(engine, ids) == ["queued"] * 5 + ["failed"] * 5
    assert requeue(marks(chosen())).done == ids[5:]
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*), count(DISTINCT subject_id) FROM acts")).one() == (10, 10)


def test_two_at_the_same_moment_requeue_each_edit_once(engine: Engine) -> None:
    ids = [edit(engine, post(engine), "a") for _ in range(40)]
    seen = marks(ids)
    with ThreadPoolExecutor(2) as pool:
        both = [done.result() for done in [pool.submit(requeue, seen) for _ in range(2)]]
    while left := chosen():
        both.append(requeue(marks(left)))
    assert sorted(one for done in both for one in done.done) == sorted(ids)
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*), count(DISTINCT subject_id) FROM acts")).one() == (40, 40)


def test_an_edit_that_was_requeued_and_failed_again_is_not_meant_by_the_same_choice(engine: Engine) -> None:
    """A command that goes on until nothing is left must come to an end."""
    poison = edit(engine, post(engine), "poison")
    with transaction() as tx:
        wanted = EditFilter(up_to=mending.last_place(tx))
    assert chosen(wanted) == [poison]
    requeue({poison: None})
    with engine.begin() as tx:
        tx.execute(text(f"UPDATE edits SET {FAILED} WHERE id = :id"), {"id": poison})
    assert chosen(wanted) == []
    assert chosen() == [poison]


def test_failed_and_queued_edits_are_discarded_each_in_the_state_that_was_seen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "wanted", lambda: True)
    home = post(engine)
    failed, queued, requeued = edit(engine, home, "a"), edit(engine, home, "b", ""), edit(engine, home, "c", "")
    assert chosen(EditFilter(status="queued")) == [queued, requeued]
    with transaction() as tx:
        done = mending.discard(tx, {failed: "failed", queued: "queued", requeued: "failed"}, KIM)
    assert (sorted(done.done), done.left, done.webhooks) == (sorted([failed, queued]), [requeued], [home])
    for one in (failed, queued):
        row = factories.row(engine, "edits", one)
        assert (row.status, row.error_code, row.revision) == ("rejected", "discarded", 1)
    with engine.connect() as tx:
        events = tx.execute(text("SELECT type, data ->> 'editId' FROM webhook_events ORDER BY seq")).all()
    assert sorted(events) == sorted([("edit.rejected", failed), ("edit.rejected", queued)])


def test_the_prospect_of_one_among_many_is_that_of_the_single_one(engine: Engine) -> None:
    homes = [post(engine), post(engine)]
    ids: list[str] = []
    for number in range(6):
        home = homes[number % 2]
        ids.append(edit(engine, home, f"failed {number}"))
        later = edit(engine, home, f"later {number}", "")
        if number % 3:
            apply.apply_edits([home])
            assert statuses(engine, [later]) == ["applied"]
    with transaction() as tx:
        together = mending.prospects(tx, ids)
        each = [operator_actions.prospect(tx, one) for one in ids]
    for one, other in zip(together, each, strict=True):
        assert other is not None
        assert one.overwrites == other.overwrites[: mending.NEWER_AT_MOST]
        assert (one.before, one.after) == (other.before, other.after)
    assert any(one.overwrites for one in together)


def test_failed_edits_are_grouped_by_error_with_counts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = post(engine), post(engine)
    for where in (home, home, other):
        edit(engine, where, "a")
    odd = edit(engine, home, "b", FAILED.replace("'x'", "'odd'"))
    edit(engine, home, "c", "")
    with transaction() as tx:
        found = mending.groups(tx, EditFilter())
        assert [(one.code, one.message, one.count, one.posts) for one in found.groups] == [
            ("internal", "x", 3, 2), ("internal", "odd", 1, 1),
        ]  # fmt: skip
        assert (found.total, found.distinct, found.truncated) == (4, 2, False)
        assert mending.choose(tx, EditFilter(group=found.groups[1].id), 10).ids == [odd]
        assert mending.groups(tx, EditFilter(error="ODD")).total == 1
        monkeypatch.setattr(mending, "LOOKED_AT", 4)
        assert not mending.groups(tx, EditFilter()).truncated
        monkeypatch.setattr(mending, "LOOKED_AT", 3)
        assert mending.groups(tx, EditFilter()).truncated


def test_a_choice_goes_on_to_its_end_however_few_are_looked_at(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "LOOKED_AT", 3)
    home = post(engine)
    ids = [edit(engine, home, str(number), FAILED.replace("'x'", f"'{number % 4}'")) for number in range(20)]
    found: list[str] = []
    place: int | None = -1
    while place is not None:
        with transaction() as tx:
            some = mending.choose(tx, EditFilter(error="internal: 2"), 2, place)
        found, place = found + some.ids, some.next_place
    assert found == ids[2::4]


@pytest.mark.parametrize("look", ["one", "many"])
def test_what_would_be_overwritten_is_seen_behind_any_number_of_later_changes(engine: Engine, look: str) -> None:
    home = post(engine)
    mine = edit(engine, home, "mine")
    later = edit(engine, home, "later", "status = 'applied', revision = 2, finalized_at = now()")
    with engine.begin() as tx:
        for number in range(max(mending.NEWER_AT_MOST, operator_actions.NEWER_AT_MOST) + 5):
            moved = factories.edit(tx, home, {"move": {}} if number % 2 else {"scheduledTime": "x", "timezone": "UTC"})
            tx.execute(
                text("UPDATE edits SET status = 'applied', revision = 3, finalized_at = now() WHERE id = :id"),
                {"id": moved},
            )
    with transaction() as tx:
        found = operator_actions.prospect(tx, mine) if look == "one" else mending.prospects(tx, [mine])[0]
    assert found is not None
    assert [one.edit_id for one in found.overwrites] == [later]


def test_the_edits_of_one_post_are_requeued_in_parts_and_each_part_goes_on_where_the_last_ended(engine: Engine) -> None:
    """The first part changes the post's queue, which is no reason to leave the others."""
    home = post(engine)
    ids = [edit(engine, home, f"c{number}") for number in range(5)]
    with transaction() as tx:
        act = requeues.Act(mending.last_place(tx))
        seen = mending.prospects(tx, ids)
    parts = requeues.chunks(seen, 2)
    assert [len(part) for part in parts] == [2, 2, 1]
    for number, part in enumerate(parts):
        with transaction() as tx:
            done = mending.requeue(tx, {one.edit.id: one.mark for one in part}, KIM, act)
        act.add(part, done.done)
        assert done.left == []
        # A worker applies what was requeued meanwhile, and moves the post's revision.
        apply.apply_edits([home])
        assert statuses(engine, ids) == ["applied"] * min(5, 2 * (number + 1)) + ["failed"] * max(0, 3 - 2 * number)
    # In their order: the last one counts.
    assert factories.row(engine, "posts", home).caption == "c4"


def test_an_edit_that_comes_between_two_parts_leaves_the_rest_as_it_is(engine: Engine) -> None:
    home = post(engine)
    ids = [edit(engine, home, f"c{number}") for number in range(3)]
    with transaction() as tx:
        act = requeues.Act(mending.last_place(tx))
        first, second = requeues.chunks(mending.prospects(tx, ids), 2)
    with transaction() as tx:
        act.add(first, mending.requeue(tx, {one.edit.id: one.mark for one in first}, KIM, act).done)
    edit(engine, home, "came in between", "")
    with transaction() as tx:
        done = mending.requeue(tx, {one.edit.id: one.mark for one in second}, KIM, act)
    assert (done.done, done.left) == ([], [ids[2]])
