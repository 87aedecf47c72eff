"""The arithmetic of `scripts/bench`: what it counts must be right, how fast anything is does not matter here."""
