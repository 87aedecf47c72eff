"""Loops and use-cases: the leader's scheduler, every node's worker, and the one door that the API uses."""
