"""The rings of tests; one folder a ring."""
