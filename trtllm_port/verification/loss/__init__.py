"""What quantization cost: Hugging Face's model with its original weights beside the same with the quantized ones.

In: two directories of one architecture, the names of the weights that are quantized in one of them, a text. Out:
`Loss`, how far the next-token distributions are apart, and which modules make them so. Nothing in here knows a port, or
how the quantized weights came about. A newcomer adds a measure of two distributions in `divergence.py`.
"""
