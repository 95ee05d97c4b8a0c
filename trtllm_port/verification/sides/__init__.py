"""The sides of a comparison: Hugging Face as reference and as yardstick, and the port.

In: a model and its port. Out: recordings of what they compute.
"""
