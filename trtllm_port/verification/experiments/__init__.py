"""Causes by replay: a known bug, given to Hugging Face's own module, must give the port's own error.

In: the modules that differ, and what their signatures say. Out: causes, confirmed where the error falls to the floor. A
newcomer adds a `Hypothesis` to the table of the file that it fits; `catalogue.py` has their order.
"""
