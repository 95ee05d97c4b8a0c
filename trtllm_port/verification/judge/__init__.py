"""Numbers to verdicts: error measures, tolerances, gates. Pure functions.

In: tensors of two runs, or their errors. Out: `TapComparison`, `Gate`, `Verdict`. A newcomer adds a gate.
"""
