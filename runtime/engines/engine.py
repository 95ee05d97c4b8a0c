"""A compiled TensorRT engine as an `Executor`. **Not yet run on hardware**, and its name says so.

It follows the documented Python API (IRuntime, ICudaEngine, IExecutionContext, IDebugListener); the machines on which
this package is tested have no GPU that a TensorRT library there supports, so only its logic is tested, with stand-ins
for the library.

Shape suffixes: B batch, L tokens, T wanted logits, K key/value heads, S slots, H head size, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from trtllm_port.errors import EngineError
from trtllm_port.layers.definition.dtypes import torch_dtype, trt_dtype_name
from trtllm_port.layers.definition.flavour import get_logger, load_flavour, no_garbage_collection
from trtllm_port.runtime.engines.profiles import CONTEXT_PROFILE, DECODE_PROFILE
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.network.executor import Executor, OnTap, TensorSpec
from trtllm_port.runtime.network.kv_cache import CACHE_PREFIX, present_name, replace_states

__all__ = ["TensorRTExecutor"]

UNTESTED = "not yet proven on hardware"


class TensorRTExecutor(Executor):
    """Runs an engine with one execution context and two optimization profiles.

    Args:
        engine_path: the serialized engine. The caller has checked its digest: TensorRT trusts what it deserializes.
        network_path: the network file, for the names of the taps.
        flavour: "tensorrt" or "tensorrt_rtx".

    Raises:
        EnvironmentLackError: the library is not installed.
        EngineError: the library refuses the engine, with its words.
    """

    def __init__(self, engine_path: Path, network_path: Path, *, flavour: str) -> None:
        self._trt: ModuleType = load_flavour(flavour)
        self._logger = get_logger(self._trt)
        with no_garbage_collection():
            self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._deserialize(engine_path)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{flavour} cannot create an execution context for `{engine_path}`: {self._complaints()}")
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._profile = -1
        inputs, outputs = self._specs()
        network = NetworkFile.load(network_path)
        gpu = torch.cuda.get_device_name()
        super().__init__(
            network,
            name=f"{flavour} {self._trt.__version__} ({gpu}; {UNTESTED})",
            inputs=inputs,
            outputs=outputs,
            # those that the engine was built with: none unless the build asked for them
            taps={path: name for path, name in network.taps.items() if self._engine.is_debug_tensor(name)},
        )

    def run(
        self,
        feeds: Mapping[str, torch.Tensor],
        *,
        on_tap: OnTap | None = None,
        taps: Collection[str] = (),
        stop_after: str | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run the engine once.

        Args:
            feeds: CUDA tensors by input name; caches and states are updated in place.
            on_tap: called with (name, tensor) for each of `taps`; the tensor is valid only during the call. Without it,
                copies of the taps are part of the result.
            taps: of `tap_names`.
            stop_after: not used: an engine always runs to its end.

        Returns:
            Logits [B, T, V], and the caches under their output names.
        """
        if unknown := sorted(set(taps) - set(self._taps)):
            raise EngineError(f"the engine was built without the taps {', '.join(unknown)}", hint="build with `--taps`")
        kept = {name: tensor.contiguous() for name, tensor in feeds.items()}
        self._stream.wait_stream(torch.cuda.current_stream())
        self._select_profile(DECODE_PROFILE if kept["input_ids"].shape[1] == 1 else CONTEXT_PROFILE)
        outputs = self._bind(kept)
        copies: dict[str, torch.Tensor] = {}
        listener = self._listen(on_tap or (lambda name, tensor: copies.update({name: tensor.clone()})), taps)
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise EngineError(f"{self.name} failed to run: {self._complaints()}")
        self._stream.synchronize()
        replace_states(feeds, outputs)
        if listener is not None and listener.error is not None:
            raise listener.error
        return outputs | copies

    def _deserialize(self, path: Path) -> Any:
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(
                f"{self._trt.__name__} {self._trt.__version__} refuses `{path}`: {self._complaints()}",
                hint="engines are bound to a library version and to GPUs: build it again here",
            )
        return engine

    def _specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            spec = TensorSpec(
                name=name,
                dtype=trt_dtype_name(self._trt, self._engine.get_tensor_dtype(name)),
                shape=tuple(self._engine.get_tensor_shape(name)),
            )
            (inputs if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT else outputs).append(spec)
        return tuple(inputs), tuple(outputs)

    def _select_profile(self, index: int) -> None:
        if index == self._profile:
            return
        if not self._context.set_optimization_profile_async(index, self._stream.cuda_stream):
            raise EngineError(f"{self.name} has no optimization profile {index}: {self._complaints()}")
        self._stream.synchronize()  # the switch may copy
        self._profile = index

    def _bind(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Give every input its shape and every tensor its address; a cache and its output share one."""
        for spec in self.inputs:
            tensor = feeds[spec.name]
            if not self._context.set_input_shape(spec.name, tuple(tensor.shape)):
                raise EngineError(
                    f"the engine does not take {spec.name} of shape {tuple(tensor.shape)}: {self._complaints()}"
                )
            self._context.set_tensor_address(spec.name, tensor.data_ptr())
        aliases = {present_name(name): tensor for name, tensor in feeds.items() if name.startswith(CACHE_PREFIX)}
        outputs = {spec.name: aliases.get(spec.name) for spec in self.outputs}
        bound = {name: self._new_output(name) if tensor is None else tensor for name, tensor in outputs.items()}
        for name, tensor in bound.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        return bound

    def _new_output(self, name: str) -> torch.Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        dtype = next(spec.dtype for spec in self.outputs if spec.name == name)
        return torch.empty(shape, dtype=torch_dtype(dtype), device=self._stream.device)

    def _listen(self, on_tap: OnTap, taps: Collection[str]) -> Any:
        self._context.set_all_tensors_debug_state(False)
        if not taps:
            return None
        paths: dict[str, list[str]] = {}
        for path in taps:
            paths.setdefault(self._taps[path], []).append(path)
        listener = _tap_listener(self._trt, paths, on_tap)
        self._context.set_debug_listener(listener)
        for name in paths:
            self._context.set_tensor_debug_state(name, True)
        return listener

    def _complaints(self) -> str:
        return "; ".join(text for _severity, text in self._logger.drain()) or "no reason given"


def _tap_listener(trt: ModuleType, paths: Mapping[str, list[str]], on_tap: OnTap) -> Any:
    """An `IDebugListener` that hands tensors to `on_tap`; an error is kept, as none may cross into TensorRT."""

    class TapListener(trt.IDebugListener):  # type: ignore[misc, name-defined]  # no stubs
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.error: BaseException | None = None

        def process_debug_tensor(
            self, address: Any, location: Any, dtype: Any, shape: Any, name: str, stream: int
        ) -> bool:
            try:
                with torch.cuda.stream(torch.cuda.ExternalStream(stream)):  # type: ignore[no-untyped-call]
                    tensor = _at_address(_pointer(address), tuple(shape), torch_dtype(trt_dtype_name(trt, dtype)))
                    for path in paths.get(name, ()):
                        if on_tap(path, tensor) is not None:
                            raise EngineError(
                                f"the value of `{path}` cannot be replaced: an engine runs as it was built",
                                hint="replace values with `--backend reference`",
                            )
            except BaseException as error:
                self.error = error
                return False
            return True

    return TapListener()


def _pointer(capsule: Any) -> int:
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)) or 0)


class _DeviceBytes:
    """Device memory as torch can take it over without a copy; bytes, since CUDA's array interface has no bfloat16."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, True), "version": 3}


def _at_address(address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    return torch.as_tensor(_DeviceBytes(address, size), device="cuda").view(dtype).view(shape)
