"""What must hold for KV caches to be updated in place without changing a result."""

from __future__ import annotations

from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.reference.evaluators.errors import UnsupportedLayerError


def caches_of(network: NetworkFile) -> set[str]:
    """The inputs that KV_CACHE_UPDATE layers change.

    Raises:
        UnsupportedLayerError: a cache is no network input, as TensorRT demands, or another layer reads it, whose result
            would depend on which of the two came first.
    """
    readers: dict[str | None, int] = {}
    for layer in network.layers:
        for name in layer.inputs:
            readers[name] = readers.get(name, 0) + 1
    caches = set()
    for layer in network.layers:
        if layer.type == "KV_CACHE_UPDATE":
            cache = layer.inputs[0]
            if cache is None or cache not in network.inputs:
                raise UnsupportedLayerError.of(layer, f"a cache, {cache!r}, that is no input of the network")
            if readers[cache] > 1 or cache in network.outputs:
                raise UnsupportedLayerError.of(layer, f"a cache, {cache!r}, that is read elsewhere as well")
            caches.add(cache)
    return caches
