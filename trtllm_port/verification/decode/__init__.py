"""The port as `run` uses it: decode steps through the KV cache, rows of a padded batch, every row of its tables.

In: both sides of a phase. Out: gates, and the module and cause where nothing else is wrong. A newcomer adds another use
of a port, with its gates.
"""
