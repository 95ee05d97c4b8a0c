"""The low-level functions: one file for each family, each adding layers of TensorRT to its operands' network.

In: `Tensor`. Out: `Tensor`. A newcomer who wants one more layer of TensorRT adds its function here.
"""
