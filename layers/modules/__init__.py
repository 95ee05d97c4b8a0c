"""Layers with parameters, and the base classes of models: what a port's `model.py` is made of.

In: config values and tensors. Out: tensors. A newcomer adds a layer that several models share.
"""
