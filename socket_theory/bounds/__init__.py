"""Theorems as numbers: what each assumes, the value of its bound, and its inverse where one exists.

Pure functions. `delta` is a failure probability, `*_radius` a bound exceeded with probability at most delta,
`*_failure` the probability of exceeding a given bound, `*_tables` and `*_samples` the inverses.
"""
