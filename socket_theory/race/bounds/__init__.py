"""Bounds that need the law of a soft collision of queries and keys."""
