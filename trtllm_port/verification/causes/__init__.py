"""Why a module is wrong, and which line of the source that is.

In: the modules that differ, their tensors on both sides, the sources. Out: `Cause`, `Place`, `Excerpt`. A newcomer adds
a law to the table `SIGNATURES`; bugs that can be replayed belong to `experiments/`.
"""
