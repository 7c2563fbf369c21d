"""Redis: the connection, the queues, ringing, answers, and what workers report."""
