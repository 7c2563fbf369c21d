"""Calling the publisher, the renderer and the receiver of webhooks."""
