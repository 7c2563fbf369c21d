"""The peers: the same edit with the same lock, recheck, audit row and commit, behind other ways of queueing or none.

edit.py makes the edit and edge.py speaks HTTP, for all of them alike; each other module is one peer.
"""
