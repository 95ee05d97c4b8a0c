"""One phase of a comparison from beginning to end: all sides run, everything is judged.

In: a model, its port, a stimulus, the precisions. Out: `PhaseResult`, and what the phases could not show. A newcomer
adds another order of running, as `lockstep.py` is for large models, or a kind of `NotExercised`.
"""
