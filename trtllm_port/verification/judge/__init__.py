"""Numbers to verdicts: error measures, tolerances, gates. Pure functions: nothing in here runs a model.

In: tensors of two runs, or their errors. Out: `TapComparison`, `Gate`, `Verdict`. A newcomer adds a gate, with its
tolerance, reason and source in `thresholds.py`.
"""
