"""RACE on a GPU."""
