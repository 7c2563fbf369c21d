"""A publisher, a renderer and a receiver of webhooks, as docs/services.md asks for them: for tests and for trying out.

    python -m tests.reference_services --port 9000

`POST /publish`, `/render` and `/webhooks` are what Redraft calls; REDRAFT_SERVICE_SECRET is the secret of both sides.
With `--tame SEED` the publisher has bad moments of its own; `opponent.py` is one that plays against us.
`GET /journal` tells all that came, `GET /effects` what went out. `POST /behave` makes the next calls go wrong
(`server.Behaviour`). `verification.py` checks a publisher of your own; `under_test.py` holds its calls.
"""
