"""What `scripts/bench` measures: one module a figure, around one cluster of real processes and one report."""
