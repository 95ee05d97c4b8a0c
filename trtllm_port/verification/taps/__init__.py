"""Taps: the named tensors at which two runs are compared, and what a run must offer to be tapped.

In: a torch model, or any `Runner`. Out: names of taps, their `Pairing`, and tensors as they pass by. A newcomer adds
what else is to be read off a model while it runs.
"""
