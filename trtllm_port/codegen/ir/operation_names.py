"""Names of torch's operations by what they mean for a record."""

from __future__ import annotations

from trtllm_port.foundation.words import words

# Reads of a tensor's kind, and bookkeeping: nothing is computed.
SILENT = words(
    "size dim ndim numel nelement is_floating_point is_complex is_contiguous stride storage_offset data_ptr get_device "
    "element_size _set_grad_enabled set_grad_enabled is_grad_enabled get_default_dtype has_torch_function can_cast "
    "requires_grad_ register_hook is_inference result_type broadcast_shapes is_tensor finfo is_autocast_enabled "
    "_is_view untyped_storage is_same_size __len__ __hash__ __repr__ __torch_dispatch__"
)
SILENT_PROPERTIES = words(
    "shape dtype device requires_grad is_cuda is_cpu layout ndim grad grad_fn names is_meta is_sparse is_quantized "
    "itemsize nbytes is_nested _version is_mkldnn is_xpu is_mps is_leaf _base _is_param is_vulkan retains_grad"
)
# A tensor's content becomes a Python value: the trace would depend on the data.
HOST_READS = words("item tolist __bool__ __int__ __float__ __index__ __contains__ numpy nonzero equal allclose")
NUMBERS = words("tensor as_tensor scalar_tensor")  # make tensors of Python numbers
# Layers that are alike may differ in which of their casts change anything: all are recorded.
CASTS = words("to type type_as float half bfloat16 long int bool double")
