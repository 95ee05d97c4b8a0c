"""`PretrainedConfig`: a port's config, a frozen dataclass whose fields carry HF's names and resolved values."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from trtllm_port.errors import ConfigError
from trtllm_port.foundation.foreign import reading, typed
from trtllm_port.huggingface.text_part import load_hf_config
from trtllm_port.layers.config.built_in import parameter_sets
from trtllm_port.layers.config.per_layer import config_value
from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.weights import HuggingFaceWeights

_OWN_FIELDS = ("architecture", "dtype", "mapping")  # not taken from HF's config by equal name
CHECKPOINT_KEYS = (
    "producer",
    "source",
    "port",
    "tensors",
    "quantization",
)  # what `convert` adds to a checkpoint's config.json


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """The base of every port's config. Ports add the HF fields that they use, and properties for what follows.

    The default of a field is what HF computes with where a config lacks the key, or has null there.

    Attributes:
        architecture: HF's class name, e.g. "LlamaForCausalLM".
        dtype: data type of weights and activations: "float32", "float16" or "bfloat16".
        vocab_size, tie_word_embeddings: as in HF.
        mapping: how the model is cut over ranks.
    """

    architecture: str
    dtype: str
    vocab_size: int
    tie_word_embeddings: bool = False
    mapping: Mapping = field(default_factory=Mapping)

    #: HF config keys whose value the port has built in, entries of a dict as `rope_parameters.factor`.
    FIXED: ClassVar[dict[str, Any]] = {}
    #: Tokens of the longest text that the port computes as HF does; None: there is no limit.
    LONGEST: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if self.dtype not in FLOAT_DTYPES:
            raise ConfigError(
                f"dtype is `{self.dtype}`, expected {', '.join(FLOAT_DTYPES)}", hint="choose one with `--dtype`"
            )

    @classmethod
    def from_hugging_face(
        cls,
        hf_model_dir: str | Path,
        dtype: str = "auto",
        mapping: Mapping | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Read a HF directory's `config.json` through transformers, which fills in the defaults.

        Args:
            hf_model_dir: a directory with `config.json`.
            dtype: "auto" takes the checkpoint's.
            mapping: None: one rank.
            trust_remote_code: let transformers run code that comes with the model.

        Raises:
            ConfigError: no readable `config.json`; a field that the port needs is absent; a key of `FIXED` has another
                value than the port has built in.
        """
        hf_config = load_hf_config(hf_model_dir, trust_remote_code)
        return cls.of(hf_config, resolve_dtype(dtype, hf_config, hf_model_dir), mapping, str(hf_model_dir))

    @classmethod
    def of(cls, hf_config: Any, dtype: str, mapping: Mapping | None = None, name: str = "config.json") -> Self:
        """Take what the port uses of a `transformers` config.

        Args:
            hf_config: of the language model.
            dtype, mapping: as `from_hugging_face`; "auto" is not known here.
            name: whose config it is, for messages.

        Raises:
            ConfigError: as `from_hugging_face`.
        """
        cls._check_fixed(hf_config)
        values = cls._from_equal_names(hf_config)
        if hf_config.architectures:
            values["architecture"] = hf_config.architectures[0]
        values["dtype"] = dtype
        values["mapping"] = mapping or Mapping()
        cls._check_values(values, name)
        return cls(**cls._typed(values))

    @classmethod
    def _check_values(cls, values: dict[str, Any], name_of: str) -> None:
        """Refuse fields that have neither a value nor a default, and null or lists where the field's type has none."""
        hints = get_type_hints(cls)
        required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        null = [
            name
            for name, value in values.items()
            if value is None and hints[name] != Any and type(None) not in get_args(hints[name])
        ]
        missing = [name for name in required if name not in values]
        problems = [f"`{name}` is missing" for name in missing] + [f"`{name}` is null" for name in null]
        for name in (name for name, value in values.items() if value is not None):
            lists, others = _allowed(hints[name])
            if isinstance(values[name], list) and not lists:
                problems.append(f"`{name}` is a list, and the port was written for one value")
            elif not isinstance(values[name], list) and not others:
                problems.append(f"`{name}` is one value, and the port was written for a list")
        if problems:
            raise ConfigError(f"the config of `{name_of}` does not fit `{cls.__name__}`: {', '.join(problems)}")

    @classmethod
    def _from_equal_names(cls, hf_config: Any) -> dict[str, Any]:
        defaults = {item.name: item.default for item in fields(cls) if item.name not in _OWN_FIELDS}
        found = {name: config_value(hf_config, name, MISSING) for name in defaults}
        given = {name: value for name, value in found.items() if value is not MISSING}
        return {name: _plain(value) for name, value in given.items() if value is not None or defaults[name] is MISSING}

    @classmethod
    def _check_fixed(cls, hf_config: Any) -> None:
        wrong: list[str] = []
        for key, expected in sorted(cls.FIXED.items()):
            name, _, entry = key.partition(".")
            found = config_value(hf_config, name, MISSING)
            if found is MISSING:
                continue
            pairs = [(key, found, expected)]
            if entry:
                pairs = [(key, each.get(entry), expected) for each in parameter_sets(found)]
            elif isinstance(expected, dict) and hasattr(found, "to_dict"):  # a config within the config
                values = found.to_dict()
                pairs = [(f"{key}.{inner}", values.get(inner, MISSING), item) for inner, item in expected.items()]
            wrong += [
                f"`{name}` is {_shown(value)}, the port was written for {fixed!r}"
                for name, value, fixed in pairs
                if _plain(value) != _plain(fixed)
            ]
        if wrong:
            raise ConfigError("; ".join(wrong), hint="generate a port from this model with `trtllm-port new`")

    @classmethod
    def _typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Lists as tuples where the field says so: JSON knows lists only."""
        hints = get_type_hints(cls)
        return {
            name: tuple(value) if isinstance(value, list) and get_origin(hints[name]) is tuple else value
            for name, value in values.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: MappingType[str, Any]) -> Self:
        """The inverse of `to_dict`; ConfigError names every unknown and every missing key."""
        names = {item.name for item in fields(cls)}
        unknown, missing = sorted(set(values) - names), sorted(names - set(values))
        if unknown or missing:
            problems = [f"unknown `{key}`" for key in unknown] + [f"missing `{key}`" for key in missing]
            raise ConfigError(f"not a config of `{cls.__name__}`: {', '.join(problems)}")
        mapping = values["mapping"]
        if not isinstance(mapping, dict) or set(mapping) != {"tp_size", "pp_size", "rank"}:
            raise ConfigError(f"`mapping` is {mapping!r}, expected tp_size, pp_size and rank")
        with reading("config.json", ConfigError, failed="is not that of a checkpoint"):
            return cls(**{**cls._typed(dict(values)), "mapping": typed(Mapping, mapping)})


def _allowed(hint: Any) -> tuple[bool, bool]:
    """Whether a field's annotation allows lists (which fields keep as tuples), and whether anything else but None."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    lists = [hint == Any or (get_origin(kind) or kind) in (tuple, list) for kind in kinds if kind is not type(None)]
    return any(lists), hint == Any or not all(lists)


def _shown(value: Any) -> str:
    return "absent" if value is MISSING else repr(_plain(value))


def _plain(value: Any) -> Any:
    """Nested dicts, lists and scalars; HF has configs, dict subclasses, tuples and torch dtypes in its configs."""
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def resolve_dtype(dtype: str, hf_config: Any, hf_model_dir: str | Path) -> str:
    """`dtype`; for "auto" the config's own, else the weights' (see `HuggingFaceWeights.main_dtype`).

    A directory without either is float32, torch's default.
    """
    if dtype != "auto":
        return dtype
    if hf_config.dtype is not None:
        return str(hf_config.dtype).removeprefix("torch.")
    if not any(Path(hf_model_dir).glob("model.safetensors*")):
        return "float32"
    return HuggingFaceWeights(hf_model_dir).main_dtype() or "float32"
