"""Taps: the named tensors at which two runs are compared, and what runs must offer to be tapped.

In: a running model. Out: names and tensors.
"""
