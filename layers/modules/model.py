"""`PretrainedModel` and `DecoderModelForCausalLM`: from weights to a network.

Shapes: B batch, L new tokens, T tokens whose logits are wanted, E hidden size, V vocabulary.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping as MappingType
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import torch

from trtllm_port.errors import CheckpointError, ConfigError, NetworkError
from trtllm_port.foundation.foreign import read_json
from trtllm_port.layers.config.pretrained import CHECKPOINT_KEYS, PretrainedConfig
from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.definition.network import Network, Sketch, Tensor
from trtllm_port.layers.definition.quantized import WeightFormat, parts_of, stored_codes
from trtllm_port.layers.functional.attention import gather_tokens
from trtllm_port.layers.functional.cache import KVCache
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.quantization import open_weights, quantization_section, read_formats
from trtllm_port.layers.weights import (
    MappingWeights,
    ParameterSpec,
    SafetensorsFile,
    TensorSource,
    WeightMap,
    WeightPlan,
    plan_weights,
)

SKETCHED_LENGTH = 64  # slots of the KV cache of a network that is only looked at


class PretrainedModel(Module):
    """A module with a config, weights, and a network.

    Attributes:
        config_class: the port's config class.
        weight_map: what in HF's files is not a parameter of equal name; see `layers/weights`.
        base_model_prefix: the name of the inner model, which some files on the hub leave out.
        weights: parameter name → tensor, after loading; of a quantized parameter its codes, and its other tensors.
        formats: how some parameters are quantized, by name.
    """

    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    weight_map: ClassVar[WeightMap] = {}
    base_model_prefix: ClassVar[str] = "model"

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        if config.mapping.pp_size > 1:
            raise ConfigError(f"pp_size is {config.mapping.pp_size}, but ports are not cut along their layers")
        self.config = config
        self.weights: dict[str, torch.Tensor] = {}
        self.formats: dict[str, WeightFormat] = {}

    @classmethod
    def from_hugging_face(cls, hf_model_dir: str | Path, dtype: str = "auto", mapping: Mapping | None = None) -> Self:
        """The port with the weights of a HF directory; of a quantized one as they were before.

        Tensors that already have the port's data type stay memory-mapped; others are converted now.

        Raises:
            ConfigError, CheckpointError: as `PretrainedConfig.from_hugging_face` and `plan_weights`.
            UnsupportedModelError: the weights are quantized by a method that is not read.
        """
        model = cls(cls.config_class.from_hugging_face(hf_model_dir, dtype, mapping))
        model.load_hugging_face(open_weights(hf_model_dir, dtype="float32"))
        return model

    @classmethod
    def from_checkpoint(cls, checkpoint_dir: str | Path, rank: int = 0) -> Self:
        """The port with the weights of a converted checkpoint: `config.json` and `rank{rank}.safetensors`."""
        path = Path(checkpoint_dir) / "config.json"
        if not path.is_file():
            raise ConfigError(f"`{checkpoint_dir}` has no `config.json`", hint="`trtllm-port convert` writes one")
        content = read_json(path, ConfigError, hint="`trtllm-port convert` writes one")
        values = {key: value for key, value in content.items() if key not in CHECKPOINT_KEYS}
        config = cls.config_class.from_dict(values)
        model = cls(replace(config, mapping=replace(config.mapping, rank=rank)))
        file = SafetensorsFile(Path(checkpoint_dir) / f"rank{rank}.safetensors")
        model.load(file.tensors(), read_formats(content))
        return model

    def save_checkpoint(self, checkpoint_dir: str | Path) -> None:
        """Write `rank{rank}.safetensors` and `config.json`, each complete or not at all."""
        from safetensors.torch import save_file

        directory = Path(checkpoint_dir)
        directory.mkdir(parents=True, exist_ok=True)
        weights, config = directory / f"rank{self.config.mapping.rank}.safetensors", directory / "config.json"
        partial_weights, partial_config = weights.with_suffix(".partial"), directory / "config.json.partial"
        content = self.config.to_dict()
        if self.formats:
            shapes = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
            content["quantization"] = quantization_section(self.formats, shapes)
        partial_config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, partial_weights)
        shutil.copymode(partial_config, partial_weights)  # safetensors makes a file that only its owner may read
        os.replace(partial_weights, weights)
        os.replace(partial_config, config)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Parameter name → its shape in HF's file, data type, cut, and other names of the same parameter.

        Raises:
            ConfigError: the config asks for several ranks and the port has no layer that can be cut.
        """
        specs: dict[str, ParameterSpec] = {}
        first_names: dict[int, str] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            first = first_names.setdefault(id(parameter), name)
            if first == name:
                dtype = parameter.dtype or self.config.dtype
                specs[name] = ParameterSpec(parameter.full_shape, dtype, parameter.shard)
            else:
                specs[first] = replace(specs[first], aliases=(*specs[first].aliases, name))
        if self.config.mapping.tp_size > 1 and not any(spec.shard for spec in specs.values()):
            raise ConfigError(
                f"tp_size is {self.config.mapping.tp_size}, but `{type(self).__name__}` has no layer that can be cut",
                hint="write its projections as `ColumnLinear` and `RowLinear` with `mapping=config.mapping`",
            )
        return specs

    def plan(self, source: TensorSource) -> WeightPlan:
        """How the parameters are filled from HF's tensors; CheckpointError lists all that does not fit."""
        return plan_weights(
            self.parameter_specs(),
            source,
            self.weight_map,
            config=self.config,
            base_model_prefix=self.base_model_prefix,
        )

    def load_hugging_face(self, source: TensorSource | MappingType[str, torch.Tensor]) -> None:
        """Fill the parameters from HF's tensors: a directory's, or a `state_dict()`."""
        if isinstance(source, MappingType):
            source = MappingWeights(source)
        plan = self.plan(source)
        rank = self.config.mapping.tp_rank
        self.load({name: tensor for entry in plan.entries for name, tensor in plan.load(entry, source, rank).items()})

    def load(
        self, weights: MappingType[str, torch.Tensor], formats: MappingType[str, WeightFormat] | None = None
    ) -> None:
        """Take tensors that have the parameters' names, this rank's shapes and data types; refuse all else.

        Args:
            weights: of a quantized parameter its codes, and the tensors that `QuantizedParameter` lists.
            formats: how some parameters are quantized, by name.
        """
        formats = formats or {}
        expected = {
            name: (parameter.shape, parameter.dtype or self.config.dtype) for name, parameter in self.named_parameters()
        }
        for name in formats.keys() & expected.keys():
            shape, _ = expected[name]
            expected[name] = stored_codes(formats[name], shape)
        beside = {part for name in formats for part in parts_of(name, weights).values()}
        weights_alone = weights.keys() - beside
        problems = [f"missing `{name}`" for name in expected.keys() - weights.keys()]
        problems += [f"unexpected `{name}`" for name in weights_alone - expected.keys()]
        problems += [f"unknown parameter `{name}`, which is quantized" for name in formats.keys() - expected.keys()]
        for name in expected.keys() & weights.keys():
            found = (tuple(weights[name].shape), str(weights[name].dtype).removeprefix("torch."))
            if found != expected[name]:
                problems.append(f"`{name}` is {found[1]} {found[0]}, expected {expected[name][1]} {expected[name][0]}")
        if problems:
            raise CheckpointError(
                f"the weights do not fit `{type(self).__name__}`:\n  " + "\n  ".join(sorted(problems))
            )
        self.weights, self.formats = dict(weights), dict(formats)

    def define(self, *, max_seq_len: int, flavour: str = "tensorrt_rtx") -> Network:
        """The model as a TensorRT network.

        Inputs: `input_ids` and `position_ids` [B, L], `logits_indices` [B, T] (which of the L tokens' logits are
        wanted), all int64, then the caches. Outputs: `logits` [B, T, V], then the caches.

        Args:
            max_seq_len: slots of the KV cache.
            flavour: "tensorrt_rtx", "tensorrt" or "auto".
        """
        if max_seq_len < 1:
            raise NetworkError(f"max_seq_len is {max_seq_len}, expected at least 1")
        longest = self.config.LONGEST
        if longest is not None and max_seq_len > longest:
            raise NetworkError(
                f"max_seq_len is {max_seq_len}: the port computes texts of up to {longest} tokens as Hugging Face does",
                hint=f"give `--max-seq-len` of at most {longest}",
            )
        network = self._define(max_seq_len, flavour)
        # TensorRT-RTX 1.7.1's compiler crashes on the first attention, too, where these are what is between.
        if network.attention_apart and network.channel_loops and network.flavour == "tensorrt_rtx":
            return self._define(max_seq_len, flavour, attention_layers=False)
        return network

    def factors(self, flavour: str = "auto") -> dict[str, int | None]:
        """Parameters that the port uses as factors of matrix products → the axis of what goes in, -1 or -2.

        None stands for those that it uses otherwise, too. Found by defining the network without weights.
        """
        uses = self._define(min(SKETCHED_LENGTH, self.config.LONGEST or SKETCHED_LENGTH), flavour, kind=Sketch).factors
        return {
            name: axes[0] if len(set(axes)) == 1 else None
            for name, axes in uses.items()
            if any(axis is not None for axis in axes)
        }

    def _define(
        self, max_seq_len: int, flavour: str, *, attention_layers: bool = True, kind: type[Network] = Network
    ) -> Network:
        network = kind(
            dtype=self.config.dtype,
            max_seq_len=max_seq_len,
            weights=self.weights,
            flavour=flavour,
            formats=self.formats,
            attention_layers=attention_layers,
        )
        network.bind(self)
        input_ids, position_ids, logits_indices = (
            network.add_input(name, "int64", (-1, -1), ("batch_size", axis))
            for name, axis in (("input_ids", "length"), ("position_ids", "length"), ("logits_indices", "logits_length"))
        )
        cache = KVCache(network, position_ids, max_seq_len)
        logits = self(input_ids, position_ids, cache, logits_indices)
        network.mark_output(logits, "logits")
        cache.mark_outputs()
        return network


class DecoderModelForCausalLM(PretrainedModel):
    """A decoder and its language-model head.

    A port overrides `forward`, or passes both parts and keeps this one:

        super().__init__(config, transformer=MyModel(config), lm_head=Linear(...))

    where `transformer(input_ids, position_ids, cache)` returns hidden states.
    """

    def __init__(
        self, config: PretrainedConfig, transformer: Module | None = None, lm_head: Module | None = None
    ) -> None:
        super().__init__(config)
        if transformer is not None:
            self.transformer = transformer
        if lm_head is not None:
            self.lm_head = lm_head

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache, logits_indices: Tensor) -> Tensor:
        """Logits of the chosen tokens.

        Args:
            input_ids, position_ids: [B, L].
            cache: the KV cache.
            logits_indices: [B, T], positions within L.

        Returns:
            [B, T, V].
        """
        hidden_BLE = self.transformer(input_ids, position_ids, cache)
        logits_BTV: Tensor = self.lm_head(gather_tokens(hidden_BLE, logits_indices))
        return logits_BTV
