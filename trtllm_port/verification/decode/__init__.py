"""The port as `run` uses it: decode steps through the cache, rows of a batch, every row of its tables.

In: both sides. Out: gates, and the place where it goes wrong.
"""
