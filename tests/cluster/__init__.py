"""Real processes on one machine, judged from outside."""
