"""A TensorRT network that is being defined: the network, its tensors, parameters, data types.

In: calls of functions on tensors. Out: a `trt.INetworkDefinition`, with names for its layers, taps and parameters.
A newcomer adds here only what every function needs.
"""
