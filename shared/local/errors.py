"""What can go wrong with the embedded stack; each message says what to do."""


class LocalError(Exception):
    """The embedded stack cannot run as it is. The message is for the person at the terminal and says what to do."""
