"""Celery itself: the app, the transport, the consumer, the events, the scheduler."""
