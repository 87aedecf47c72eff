"""Kill, stop and write against a real cluster, then judge what was recorded."""
