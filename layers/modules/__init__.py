"""Layers with parameters, and the base classes of models: what a port's `model.py` is made of.

In: config values and tensors. Out: tensors; of a whole model, its `Network`. A newcomer adds a layer that several
models share.
"""
