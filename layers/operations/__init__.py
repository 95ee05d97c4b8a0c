"""The low-level functions: one file for each family, each adding layers of TensorRT to its operands' network.

In: `Tensor`. Out: `Tensor`. A newcomer who wants one more layer of TensorRT adds its function here, and lists it in
`layers/functional/__init__.py`; what shall be a method of tensors, too, is listed in `methods.py`.
"""
