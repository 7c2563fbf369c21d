"""Many PATCHes become one INSERT and one doorbell, and requests wait for their edits' results. Imports no route."""
