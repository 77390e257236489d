"""Estimators judged on the queries, keys and values of a real language model."""
