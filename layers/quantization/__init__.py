"""From published quantized checkpoints to exact weights: each method's config, its layouts of tensors, its formula.

In: the tensors of a Hugging Face directory and what its config says of their quantization. Out: a source with the
names of the unquantized model, whose weights are dequantized when they are read, or given as codes and scales in one
canonical form. A newcomer who adds a method does so in `methods/`.
"""

from trtllm_port.layers.quantization.checkpoint_tensors import CheckpointWeights, bytes_of_integers, tensors_of
from trtllm_port.layers.quantization.dequantized import plain_directory, write_dequantized, write_plain
from trtllm_port.layers.quantization.grid import CannotKeepError, Grid, grid_of, spread, taken
from trtllm_port.layers.quantization.kept import kept
from trtllm_port.layers.quantization.layouts.scheme import ModuleScheme, QuantizationScheme
from trtllm_port.layers.quantization.layouts.weight import BITS, ActivationScheme, Kind, QuantizedWeight
from trtllm_port.layers.quantization.methods.table import METHODS, method_of, read_scheme, scheme_of
from trtllm_port.layers.quantization.rounding import LEFT_BY_DEFAULT, ROUNDED, QuantizeOptions, Rounding, WeightsChoice
from trtllm_port.layers.quantization.section import quantization_section, read_formats
from trtllm_port.layers.quantization.source import QuantizedSource, open_weights
from trtllm_port.layers.quantization.summary import QuantizationSummary, QuantizedGroup

__all__ = [
    "BITS",
    "LEFT_BY_DEFAULT",
    "METHODS",
    "ROUNDED",
    "ActivationScheme",
    "CannotKeepError",
    "CheckpointWeights",
    "Grid",
    "Kind",
    "ModuleScheme",
    "QuantizationScheme",
    "QuantizationSummary",
    "QuantizeOptions",
    "QuantizedGroup",
    "QuantizedSource",
    "QuantizedWeight",
    "Rounding",
    "WeightsChoice",
    "bytes_of_integers",
    "grid_of",
    "kept",
    "method_of",
    "open_weights",
    "plain_directory",
    "quantization_section",
    "read_formats",
    "read_scheme",
    "scheme_of",
    "spread",
    "taken",
    "tensors_of",
    "write_dequantized",
    "write_plain",
]
