"""Causes by replay: a known bug, given to Hugging Face's own module, must give the port's own error.

In: a module's recorded call, and what the port computed. Out: `Trial`s. A newcomer adds a `Hypothesis` to one of the
tables.
"""
