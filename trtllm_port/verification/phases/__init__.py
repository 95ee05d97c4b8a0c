"""One phase of a comparison from beginning to end: all sides run, everything is judged.

In: a model, its port, a stimulus. Out: `PhaseResult`.
"""
