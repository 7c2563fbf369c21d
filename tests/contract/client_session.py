"""What a program does with the client that tests/contract/test_clients.py generates. Run: URL KEY POST POST…"""

import sys
from http import HTTPStatus

from redraft_client import AuthenticatedClient
from redraft_client.api.edits import edit_posts
from redraft_client.api.posts import create_videos, delete_post, delete_posts, edit_post
from redraft_client.api.reschedules import create_reschedule, get_reschedule
from redraft_client.models import (
    Code,
    Created,
    Deletion,
    EditItem,
    EditStatus,
    Job,
    JobStatus,
    ManyEdited,
    ManyEdits,
    NewVideos,
    OtherObject,
    Post,
    PostFilter,
    PostPatch,
    Problem,
    Reason,
    ShiftJob,
)
from redraft_client.models.deletion_report import DeletionReport

from tests.waiting import eventually


def edits_many_posts(client: AuthenticatedClient, post_ids: list[str]) -> None:
    edits = [EditItem(post_id=post_id, caption="One of many") for post_id in post_ids]
    answer = edit_posts.sync(client=client, body=ManyEdits(edits=[*edits, OtherObject()]))
    assert isinstance(answer, ManyEdited), answer
    statuses = [fate.status for fate in answer.data]
    assert statuses == [EditStatus.APPLIED] * len(post_ids) + [EditStatus.REJECTED], answer


def edits_a_post(client: AuthenticatedClient, post_id: str) -> None:
    edited = edit_post.sync(post_id, client=client, body=PostPatch(caption="From a generated client"))
    assert isinstance(edited, Post), edited
    assert edited.caption == "From a generated client"
    refused = edit_post.sync("post_none", client=client, body=PostPatch(caption="Nowhere"))
    assert isinstance(refused, Problem), refused
    assert refused.error.code is Code.NOT_FOUND


def moves_posts(client: AuthenticatedClient, post_ids: list[str]) -> None:
    body = ShiftJob(filter_=PostFilter(post_ids=post_ids), shift="P1D")
    job = create_reschedule.sync(client=client, body=body, idempotency_key="generated-client")
    assert isinstance(job, Job), job
    job_id = job.id

    def ended() -> Job | None:
        seen = get_reschedule.sync(job_id, client=client)
        assert isinstance(seen, Job), seen
        return seen if seen.status not in (JobStatus.QUEUED, JobStatus.RUNNING) else None

    done = eventually(ended, within=30)
    assert (done.status, done.applied) == (JobStatus.DONE, len(post_ids)), done


def creates_and_deletes_several(client: AuthenticatedClient, account_id: str) -> None:
    url = "https://cdn.example.com/a.mp4"
    made = [
        create_videos.sync(client=client, body=NewVideos(account_ids=[account_id], content_url=url)) for _ in range(3)
    ]
    posts = [one for each in made if isinstance(each, Created) for one in each.posts]
    assert len(posts) == 3, made
    *posts, one = posts
    assert delete_post.sync_detailed(one.post_id, client=client).status_code == HTTPStatus.NO_CONTENT
    again = delete_post.sync(one.post_id, client=client)
    assert isinstance(again, Problem), again
    wanted = [post.post_id for post in posts]
    report = delete_posts.sync(client=client, body=Deletion(post_ids=[*wanted, "post_none"]))
    assert isinstance(report, DeletionReport), report
    assert report.deleted == wanted
    assert [(one.post_id, one.reason) for one in report.failed] == [("post_none", Reason.NOT_FOUND)]


def main(url: str, key: str, account_id: str, *post_ids: str) -> None:
    with AuthenticatedClient(base_url=url, token=key, httpx_args={"trust_env": False}) as client:
        edits_many_posts(client, list(post_ids))
        edits_a_post(client, post_ids[0])
        moves_posts(client, list(post_ids))
        creates_and_deletes_several(client, account_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
