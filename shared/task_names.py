"""The names of tasks and queues, and which task goes on which queue."""

EDITS_APPLY = "edits.apply"
POSTS_PUBLISH = "posts.publish"
POSTS_RENDER = "posts.render"
POSTS_DISPATCH_DUE = "posts.dispatch_due"
RESCHEDULES_RUN_CHUNK = "reschedules.run_chunk"
WEBHOOKS_DELIVER = "webhooks.deliver"
OPS_RESCUE = "ops.rescue"

QUEUE_OF = {
    EDITS_APPLY: "edits",
    POSTS_PUBLISH: "publish",
    POSTS_RENDER: "render",
    RESCHEDULES_RUN_CHUNK: "bulk",
    WEBHOOKS_DELIVER: "webhooks",
    POSTS_DISPATCH_DUE: "ops",
    OPS_RESCUE: "ops",
}
QUEUES = ("edits", "publish", "render", "bulk", "webhooks", "ops")
