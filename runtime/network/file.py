"""`NetworkFile`: one rank's network as data, from a TensorRT definition or from disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from trtllm_port.errors import EngineError
from trtllm_port.foundation.foreign import reading
from trtllm_port.runtime.network import store
from trtllm_port.runtime.network.extract import Extraction
from trtllm_port.runtime.network.schema import FORMAT, VERSION, Constant, LayerRecord, TensorRecord

if TYPE_CHECKING:
    import torch


class BuiltNetwork(Protocol):
    """What `NetworkFile.from_network` reads of a `trtllm_port.layers.Network`."""

    trt: ModuleType
    definition: Any
    dtype: str
    max_seq_len: int
    constants: dict[str, torch.Tensor]
    parameters: dict[str, str]
    taps: dict[str, str]
    computed_elsewhere: dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A TensorRT network as plain data.

    Attributes:
        flavour: the library that built it, "tensorrt" or "tensorrt_rtx", and `flavour_version`.
        dtype: the port's dtype; None for a network that is no port.
        max_seq_len: the slots of the KV cache; None for a network that is no port.
        inputs, outputs: tensor names in the network's order.
        tensors: name → dtype and shape, of every tensor.
        layers: in the network's order.
        taps: name of a tap (a module's path) → tensor name.
        computed_elsewhere: path of a module of HF's → path of the tap that holds it, or None; as the port declares.
        constants: output name of each CONSTANT layer → its value or its name in the checkpoint.
    """

    flavour: str
    flavour_version: str
    dtype: str | None = None
    max_seq_len: int | None = None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: dict[str, TensorRecord]
    layers: tuple[LayerRecord, ...]
    taps: dict[str, str] = field(default_factory=dict)
    computed_elsewhere: dict[str, str | None] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the checkpoint's tensors that the network reads."""
        return frozenset(each.parameter for each in self.constants.values() if each.parameter is not None)

    @classmethod
    def from_network(cls, network: BuiltNetwork) -> NetworkFile:
        """The file of a network that a port built.

        Constants that come from the checkpoint are named, not copied: see `parameter_values` for their tensors.
        """
        return cls._extract(
            Extraction(network.definition, network.trt, network.constants, network.parameters),
            network.trt,
            dtype=network.dtype,
            max_seq_len=network.max_seq_len,
            taps=dict(network.taps),
            computed_elsewhere=dict(network.computed_elsewhere),
        )

    @classmethod
    def from_definition(
        cls, definition: Any, trt: ModuleType, *, constants: Mapping[str, torch.Tensor] | None = None
    ) -> NetworkFile:
        """The file of any `trt.INetworkDefinition`, such as one that an ONNX parser filled.

        Args:
            definition: the network.
            trt: the TensorRT module that made it.
            constants: tensors behind CONSTANT layers by the names of their outputs. Others are read from the layers,
                which cannot be done for bfloat16, float8 and 4-bit types.

        Raises:
            PortError: a constant cannot be read back.
        """
        return cls._extract(Extraction(definition, trt, constants or {}, {}), trt)

    @classmethod
    def _extract(cls, found: Extraction, trt: ModuleType, **described: Any) -> NetworkFile:
        return cls(
            flavour=trt.__name__,
            flavour_version=trt.__version__,
            inputs=found.inputs,
            outputs=found.outputs,
            tensors=found.tensors,
            layers=found.layers,
            constants=found.constants,
            **described,
        )

    def save(self, path: Path | str) -> None:
        """Write the file, and `rank{r}.constants.safetensors` beside it if a constant is too large for the text."""
        path = Path(path)
        constants_file = store.constants_path(path)
        writer = store.ConstantWriter(constants_file.name)
        constants = [(name, writer.entry(name, constant)) for name, constant in self.constants.items()]
        writer.write(constants_file)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "flavour": self.flavour,
            "flavour_version": self.flavour_version,
            "dtype": self.dtype,
            "max_seq_len": self.max_seq_len,
            "inputs": self.inputs,
            "outputs": self.outputs,
        }
        sections: dict[str, Any] = {
            "layers": [store.layer_to_json(layer) for layer in self.layers],
            "tensors": ((name, [record.dtype, record.shape]) for name, record in self.tensors.items()),
            "taps": self.taps.items(),
            "constants": iter(constants),
        }
        if self.computed_elsewhere:
            sections["computed_elsewhere"] = self.computed_elsewhere.items()
        store.write_document(path, header, sections)

    @classmethod
    def load(cls, path: Path | str) -> NetworkFile:
        """Read a file that `save` wrote. Needs no TensorRT.

        Raises:
            EngineError: the file is absent, altered, or of another version; its constants are missing.
        """
        path = Path(path)
        document = store.read_document(path)
        with reading(path, EngineError, hint="run `trtllm-port build` again", failed="is damaged"):
            tensors = {name: store.tensor_from_json(entry) for name, entry in document["tensors"].items()}
            reader = store.ConstantReader(store.constants_path(path), tensors)
            network = cls(
                flavour=document["flavour"],
                flavour_version=document["flavour_version"],
                dtype=document["dtype"],
                max_seq_len=document["max_seq_len"],
                inputs=tuple(document["inputs"]),
                outputs=tuple(document["outputs"]),
                tensors=tensors,
                layers=tuple(store.layer_from_json(entry) for entry in document["layers"]),
                taps=dict(document["taps"]),
                computed_elsewhere=dict(document.get("computed_elsewhere", {})),
                constants={name: reader.constant(name, entry) for name, entry in document["constants"].items()},
            )
            network._require_tensors()
        return network

    def _require_tensors(self) -> None:
        """ValueError where a tensor is named that the file does not describe."""
        named = {*self.inputs, *self.outputs, *self.taps.values(), *self.constants}
        for layer in self.layers:
            named.update(name for name in (*layer.inputs, *layer.outputs) if name is not None)
        unknown = sorted(named - self.tensors.keys())
        if unknown:
            raise ValueError(f"it has no tensor `{unknown[0]}`, which it names")


def parameter_values(network: BuiltNetwork) -> dict[str, torch.Tensor]:
    """Checkpoint name → tensor, of every parameter that a network in memory uses: the executor's `weights`."""
    return {parameter: network.constants[name] for name, parameter in network.parameters.items()}
