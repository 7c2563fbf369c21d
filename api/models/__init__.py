"""The bodies of requests and answers. Imports no route."""
