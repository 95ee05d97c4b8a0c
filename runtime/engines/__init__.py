"""TensorRT engines: building, their directory, and their execution on a GPU.

In: a `Network`, its file, and the limits of its use. Out: an engine directory; an `Executor` that runs it. A newcomer
adds here what differs between GPUs or releases of TensorRT.
"""
