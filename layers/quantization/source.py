"""A quantized checkpoint as the tensors of the unquantized model: found, checked, dequantized when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.foreign import read_json
from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES, torch_dtype
from trtllm_port.layers.quantization.discovery import Findings, find_units
from trtllm_port.layers.quantization.layouts.elementwise import nan_codes
from trtllm_port.layers.quantization.layouts.layout import Layout, Unit, refuse
from trtllm_port.layers.quantization.layouts.scheme import QuantizationScheme
from trtllm_port.layers.quantization.layouts.weight import QuantizedWeight
from trtllm_port.layers.quantization.methods.table import METHODS, scheme_of
from trtllm_port.layers.quantization.summary import QuantizationSummary, summarize
from trtllm_port.layers.weights import HuggingFaceWeights, TensorSource


class QuantizedSource:
    """The tensors of the model that a checkpoint was quantized from, by its names; a `TensorSource`.

    One weight is read and dequantized at a time, and nothing is kept. Others are as they are stored.

    Args:
        source: the checkpoint's tensors.
        scheme: what its config says.
        dtype: of dequantized tensors; None: that of the source's first floating-point tensor that is not of a
            quantized weight, by name.

    Raises:
        CheckpointError: tensors of quantized weights that are missing, left over, of a wrong type or shape, or that
            contradict the scheme; all in one.
    """

    def __init__(self, source: TensorSource, scheme: QuantizationScheme, dtype: str | None = None) -> None:
        self.source, self.scheme = source, scheme
        self._layouts: Mapping[str, Layout] = METHODS[scheme.method].layouts
        found: Findings = find_units(source, scheme, self._layouts)
        problems = list(found.problems)
        for unit in found.units:
            problems += self._layout(unit).header(unit)
        refuse(problems)
        self._units = {unit.name: unit for unit in found.units}
        self._names = found.names
        self._left_out = found.left_out
        self._dtype = dtype or _first_dtype(source, [name for name in found.names if name not in self._units])

    def names(self) -> Sequence[str]:
        """Of the unquantized model, in the order of the checkpoint."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the unquantized model's tensor."""
        unit = self._units.get(name)
        return self.source.shape(name) if unit is None else self._layout(unit).parameter_shape(unit)

    def dtype(self, name: str) -> str:
        """The one of dequantized tensors for those, else the stored one."""
        return self._dtype if name in self._units else self.source.dtype(name)

    def tensor(self, name: str) -> torch.Tensor:
        """The unquantized model's tensor: as it is stored, or dequantized and rounded to `dtype(name)`.

        Raises:
            CheckpointError: scales and the like with values that none can have.
        """
        weight = self.quantized(name)
        return self.source.tensor(name) if weight is None else weight.parameter(torch_dtype(self._dtype))

    def quantized(self, name: str) -> QuantizedWeight | None:
        """The canonical form of a weight; None for a tensor that is not quantized.

        Raises:
            CheckpointError: scales and the like with values that none can have; codes that are NaN.
        """
        unit = self._units.get(name)
        if unit is None:
            return None
        layout = self._layout(unit)
        problems = list(layout.values(unit))
        refuse(problems)
        weight = layout.read(unit)
        if nan_codes(weight.codes):
            refuse([f"`{unit.tensors['codes']}` has NaN"])
        return weight

    def is_quantized(self, name: str) -> bool:
        """Whether a tensor is dequantized when it is read."""
        return name in self._units

    def check_values(self) -> None:
        """Read the scales and the like of all weights, which are some percent of the checkpoint.

        Raises:
            CheckpointError: values that none can have, of all weights in one.
        """
        refuse([problem for unit in self._units.values() for problem in self._layout(unit).values(unit)])

    @property
    def left_out(self) -> tuple[str, ...]:
        """Stored tensors that neither a name nor a quantized weight has: scales of the KV cache and of outputs."""
        return self._left_out

    def summary(self) -> QuantizationSummary:
        """What is quantized how, and what is left out."""
        weights = (
            (self._layout(unit).kind(unit), self._layout(unit).block(unit), unit.scheme)
            for unit in self._units.values()
        )
        return summarize(self.scheme, weights, len(self._names) - len(self._units), self._left_out)

    def main_dtype(self) -> str:
        """The type of dequantized tensors."""
        return self._dtype

    def _layout(self, unit: Unit) -> Layout:
        return self._layouts[unit.scheme.layout]


def _first_dtype(source: TensorSource, names: Sequence[str]) -> str:
    """The type of the first floating-point tensor by name; float32 if there is none."""
    dtypes: Iterator[str] = (source.dtype(name) for name in sorted(names))
    return next((dtype for dtype in dtypes if dtype in FLOAT_DTYPES), "float32")


def open_weights(model_dir: str | Path, *, dtype: str | None = None, check_values: bool = True) -> TensorSource:
    """The weights of a Hugging Face directory, those of a quantized model by the names of the unquantized one.

    Args:
        model_dir: with `config.json`, perhaps `hf_quant_config.json`, and safetensors files.
        dtype: of dequantized tensors; None: the config's, else `QuantizedSource`'s choice.
        check_values: read all scales at once, for one error; else they are checked with each weight.

    Raises:
        UnsupportedModelError: the weights are quantized by a method that is not read.
        CheckpointError: what `HuggingFaceWeights`, `read_scheme` or `QuantizedSource` refuse.
    """
    scheme = scheme_of(model_dir)
    weights = HuggingFaceWeights(model_dir)
    if scheme is None:
        return weights
    source = QuantizedSource(weights, scheme, dtype or _config_dtype(Path(model_dir)))
    if check_values:
        source.check_values()
    return source


def _config_dtype(directory: Path) -> str | None:
    """The type that `config.json` names, of its own or of its `text_config`; None if it names none that models have."""
    config = read_json(directory / "config.json", CheckpointError)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            name = part.get(key)
            if isinstance(name, str) and name.removeprefix("torch.") in FLOAT_DTYPES:
                return name.removeprefix("torch.")
    return None
