"""How much one connection may send (docs/connections.md), and what is said to a peer that sends anything else."""

HEAD_LIMIT = 64 * 1024
FRAMING_LIMIT = 8
"""Bytes of framing for each byte of a body, beyond HEAD_LIMIT. Chunks of one byte need five. Without a bound,
trailers and extensions of chunks could be endless."""
PIECE = 4 * 1024
"""Bytes that the parser gets at once. It cannot be stopped within them: this bounds how many requests it may find."""
READ_AHEAD = 64 * 1024
"""Bytes after an unanswered request that are kept. Over that, nothing more is read from the peer for now."""
LINGER_LIMIT = 256 * 1024
"""Bytes that are read and dropped after the last answer of a connection."""

NO_HTTP = "This is no request that HTTP/1.1 allows; send a valid method, path, headers and framing of the body"
TOO_LARGE = f"The head of the request is larger than {HEAD_LIMIT:,} bytes; send fewer or shorter headers"
TOO_SLOW = "The head of the request did not arrive within {seconds:.0f} s; send it at once"
TOO_MUCH_FRAMING = "Most of the body is chunk sizes, chunk extensions or trailers; send larger chunks, and no trailers"
