"""The KV cache of a network, and the states of layers that have none: made when a layer first asks.

Shapes: B batch, K key/value heads, L new tokens, S slots (max_seq_len), H head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Network, Tensor
from trtllm_port.layers.functional.states import State
from trtllm_port.layers.operations.shaping import squeeze, unsqueeze
from trtllm_port.layers.operations.slicing import select
from trtllm_port.layers.operations.unary import cast


class KVCache:
    """Keys and values of all tokens so far. A slot's number is the token's position.

    Prompts of a batch are padded on the right. A row's next token has the position after its last real one, so it
    overwrites the padding's garbage; the masks of `causal_mask` hide slots that come later. Neither lengths nor a
    padding mask are needed. Layers that keep a state of fixed size instead must not let padding change it: `State`
    says how they tell.

    Args:
        network: the network that is being defined.
        position_ids: [B, L] int64; the first of a row is where its new tokens are written.
        max_seq_len: slots.
    """

    def __init__(self, network: Network, position_ids: Tensor, max_seq_len: int) -> None:
        self.network = network
        self.position_ids = position_ids
        self.max_seq_len = max_seq_len
        self.first_layer = 0
        self._outputs: dict[str, Tensor] = {}
        self._updated: dict[int, tuple[Tensor, Tensor]] = {}

    def beginning_at(self, layer_idx: int) -> KVCache:
        """The same cache with its layers counted from another one: what is layer 0 there is layer `layer_idx` here.

        For modules that are called several times, with keys and values of each call.
        """
        part = copy.copy(self)
        part.first_layer += layer_idx
        return part

    def update(self, layer_idx: int, key_BKLH: Tensor, value_BKLH: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values into the cache of a layer.

        Adds the network inputs `past_key_values.{layer_idx}.key` and `.value` [B, K, S, H], and the outputs
        `present_key_values.{layer_idx}.key` and `.value`, which share the inputs' memory.

        Returns:
            All keys and values, [B, K, S, H] each.
        """
        number = self.first_layer + layer_idx
        made = self._update(f"{number}.key", key_BKLH), self._update(f"{number}.value", value_BKLH)
        self._updated[number] = made
        return made

    def shared(self, layer_idx: int, kinds: Sequence[Any] | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values for a layer that has none of its own: those of the last layer so far that has some.

        Args:
            layer_idx: the layer that asks.
            kinds: of all layers, such as `config.layer_types`; then it is the last one of the same kind.

        Returns:
            All keys and values, [B, K, S, H] each.

        Raises:
            NetworkError: no layer so far has keys and values, of that kind.
        """
        alike = [number for number in self._updated if kinds is None or kinds[number] == kinds[layer_idx]]
        if not alike:
            raise NetworkError(
                f"{self.network.where()}no layer before {layer_idx} has keys and values that it may share"
            )
        return self._updated[alike[-1]]

    def update_indexer(self, layer_idx: int, key_BLH: Tensor) -> Tensor:
        """Write new keys into a second cache of a layer: those by which it chooses the slots to attend to.

        Adds the network input `past_key_values.{layer_idx}.indexer_key` [B, 1, S, H] and its output.

        Returns:
            All of these keys, [B, S, H].
        """
        return squeeze(self._update(f"{self.first_layer + layer_idx}.indexer_key", unsqueeze(key_BLH, 1)), 1)

    def _update(self, part: str, new_BKLH: Tensor) -> Tensor:
        network = self.network
        _, heads, _, head_size = new_BKLH.shape
        if heads < 0 or head_size < 0:
            raise NetworkError(
                f"{network.where()}the cache needs known numbers of heads and head size, got {new_BKLH.shape}"
            )
        past = network.add_input(
            f"past_key_values.{part}",
            new_BKLH.dtype,
            (-1, heads, self.max_seq_len, head_size),
            ("batch_size",),
        )
        layer = network.definition.add_kv_cache_update(
            past.itensor, new_BKLH.itensor, self._write_indices().itensor, network.trt.KVCacheMode.LINEAR
        )
        present = network.add("kv_cache_update", layer)
        network.rename(present, f"present_key_values.{part}")
        self._outputs[present.name] = present
        return present

    def _write_indices(self) -> Tensor:
        return self.network.shared(
            ("write_indices", self.position_ids.name),
            lambda: cast(select(self.position_ids, 1, 0), "int32"),
        )

    def state(self, layer_idx: int, name: str, number: int = 0) -> State:
        """A layer's state of fixed size, for layers that have no keys and values, or more than these.

        Args:
            layer_idx: the layer.
            name: what the state is of: "conv", "recurrent".
            number: tells apart those that a layer has several of.
        """
        layer = self.first_layer + layer_idx
        full_name = f"{layer}.{name}.{number}" if number else f"{layer}.{name}"
        return State(self.position_ids, full_name, self.keep)

    def keep(self, name: str, present: Tensor) -> None:
        """What becomes the network output `name`; NetworkError if that is given twice."""
        if name in self._outputs:
            raise NetworkError(f"{self.network.where()}`{name}` is replaced twice")
        self._outputs[name] = present

    def mark_outputs(self) -> None:
        """Make the updated caches outputs of the network, as TensorRT requires. Called once, when all is defined."""
        for name, present in self._outputs.items():
            self.network.mark_output(present, name)
