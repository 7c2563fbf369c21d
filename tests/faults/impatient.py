"""A worker that looks each second for messages nobody acknowledged: `--include=tests.faults.impatient`.

kombu looks every hundred seconds, longer than a task may last; the overlap of two runs is the same.
"""

from worker.runtime.app import app

app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # Who is cut off while looking leaves its mutex behind.
    "unacked_mutex_expire": 2,
}
