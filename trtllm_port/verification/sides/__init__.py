"""The sides of a comparison: Hugging Face as reference and as yardstick, and the port.

In: a model directory, its port, a stimulus. Out: what each side computed, as far as it is kept: `HuggingFaceSides` and
the port's `PortTaps`. A newcomer adds another way to run one of the sides.
"""
