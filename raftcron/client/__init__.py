"""Clients of the HTTP API; a node never imports this."""

from raftcron.client.http import Answer, HttpClient

__all__ = ["Answer", "HttpClient"]
