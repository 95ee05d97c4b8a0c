"""Opens a directory's weights in the way that a conversion was asked for, and plans it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtllm_port.conversion.rounded_source import RoundedWeights
from trtllm_port.conversion.source import QuantizedWeights, Source, StreamedWeights
from trtllm_port.errors import CheckpointError, ConfigError
from trtllm_port.layers.quantization import QuantizeOptions, WeightsChoice, scheme_of

if TYPE_CHECKING:
    from trtllm_port.layers import PretrainedModel
    from trtllm_port.layers.weights import WeightPlan


def open_source(model_dir: Path, weights: WeightsChoice) -> Source:
    """The tensors of a directory; those of a quantized model as they were before.

    Args:
        model_dir: with `config.json` and safetensors.
        weights: what becomes of quantized weights, or how plain ones are quantized.

    Raises:
        UnsupportedModelError: the model is quantized by a method that is not read.
        ConfigError: it is quantized, and is to be.
        CheckpointError: as `HuggingFaceWeights` and `QuantizedSource`.
    """
    if isinstance(weights, QuantizeOptions):
        return open_rounded(model_dir, weights)
    scheme = scheme_of(model_dir)
    if scheme is None:
        return StreamedWeights(model_dir)
    stored = StreamedWeights(model_dir)
    try:
        return QuantizedWeights(stored, scheme, keeps=weights == "keep")
    except CheckpointError:
        stored.close()
        raise


def open_rounded(model_dir: Path, options: QuantizeOptions) -> RoundedWeights:
    """The tensors of a plain model's directory, to be quantized.

    Raises:
        ConfigError: it is quantized already; inputs are to be quantized without a calibration.
        CheckpointError: as `HuggingFaceWeights`.
    """
    if options.wants_ranges:
        raise ConfigError(f"`{options.algorithm}` quantizes inputs, and no calibration says how large they are")
    scheme = scheme_of(model_dir)
    if scheme is not None:
        raise ConfigError(
            f"the weights of `{model_dir}` are quantized already ({scheme.method})",
            hint="give the model that it was quantized from, or leave out `--quant-algo`",
        )
    return RoundedWeights(model_dir, options)


def plan_conversion(model: PretrainedModel, source: Source) -> WeightPlan:
    """How a port's parameters are filled, and which of a source's weights are quantized on the way.

    Raises:
        CheckpointError: the weights do not fit the port.
        ConfigError: what is to be quantized fits nothing of it.
    """
    plan = model.plan(source)
    if isinstance(source, RoundedWeights):
        source.choose(plan, model.factors(), model.config.dtype)
    return plan
