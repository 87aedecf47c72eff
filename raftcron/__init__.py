"""Highly available cron without a database."""

__version__ = "0.1.0"
