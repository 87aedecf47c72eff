"""The webhook receiver of the benchmarks is that of the chaos test: a process of its own, arrivals by its own clock."""

from tests.chaos.receiver import Receiver

__all__ = ["Receiver"]
