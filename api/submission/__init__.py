"""Many PATCHes become one INSERT and one doorbell; requests wait for the end. Imports no route."""
