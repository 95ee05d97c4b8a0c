"""From published quantized checkpoints to exact weights: each method's config, its layouts of tensors, its formula.

In: the tensors of a Hugging Face directory and what its config says of their quantization. Out: a source with the
names of the unquantized model, whose weights are dequantized when they are read, or given as codes and scales in one
canonical form. A newcomer who adds a method does so in `methods/`.
"""

from trtllm_port.layers.quantization.dequantized import plain_directory, write_dequantized
from trtllm_port.layers.quantization.layouts.scheme import ModuleScheme, QuantizationScheme
from trtllm_port.layers.quantization.layouts.weight import BITS, ActivationScheme, Kind, QuantizedWeight
from trtllm_port.layers.quantization.methods.table import METHODS, method_of, read_scheme, scheme_of
from trtllm_port.layers.quantization.source import QuantizedSource, open_weights
from trtllm_port.layers.quantization.summary import QuantizationSummary, QuantizedGroup

__all__ = [
    "BITS",
    "METHODS",
    "ActivationScheme",
    "Kind",
    "ModuleScheme",
    "QuantizationScheme",
    "QuantizationSummary",
    "QuantizedGroup",
    "QuantizedSource",
    "QuantizedWeight",
    "method_of",
    "open_weights",
    "plain_directory",
    "read_scheme",
    "scheme_of",
    "write_dequantized",
]
