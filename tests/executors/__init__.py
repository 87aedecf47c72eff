"""Tests of raftcron/executors: real processes and real sockets, no network beyond loopback."""
