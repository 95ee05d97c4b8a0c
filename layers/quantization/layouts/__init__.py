"""What the methods of quantization share: the canonical weight, schemes of modules, layouts of tensors.

In: fields of a config; headers and data of one weight's tensors. Out: which modules are quantized how; what is wrong
with the tensors; codes, scales and the formula. A newcomer adds a layout that several methods have.
"""
