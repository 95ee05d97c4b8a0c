"""TensorRT engines: building, their directory, and their execution on a GPU.

In: a `NetworkFile` and what it may be used for. Out: an engine directory; an `Executor` that runs it.
"""
