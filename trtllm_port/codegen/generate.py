"""`generate_port`: from a Hugging Face config to the source of a port."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from trtllm_port.codegen import source
from trtllm_port.codegen.classes import ClassText, ClassWriter, Skeleton
from trtllm_port.codegen.ledger import Ledger, alternatives, optional, same_computation
from trtllm_port.codegen.lowering import Lowered, lower
from trtllm_port.codegen.merging import Differ, make_classes
from trtllm_port.codegen.scope import NotExpressible
from trtllm_port.codegen.sizes import LAYER_COUNTS, META_KEYS, Sample, config_values, make_samples
from trtllm_port.codegen.tracing import trace
from trtllm_port.codegen.weights import weight_names
from trtllm_port.errors import ConfigError, UnsupportedModelError

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PortSource:
    """The generated source of a port.

    Attributes:
        name: a Python identifier: the port's package.
        architecture: HF's class name, the key in the registry.
        model_type: HF's.
        port_class, config_class: names of the classes in `model.py` and `config.py`.
        files: file name → text.
        skeletons: classes that are left to be written by hand.
        ledger: what became of every config key.
        hf_class: HF's class, with its module.
        transformers_version: of the library whose source was traced.
    """

    name: str
    architecture: str
    model_type: str
    port_class: str
    config_class: str
    files: dict[str, str]
    skeletons: tuple[Skeleton, ...]
    ledger: Ledger
    hf_class: str
    transformers_version: str = field(default=transformers.__version__)


def generate_port(
    model: str | Path | Any,
    *,
    name: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> PortSource:
    """Write the source of a port for a Hugging Face model. No weights are needed.

    Args:
        model: a directory with `config.json`, or a `transformers` config.
        name: of the port; HF's model type by default.
        trust_remote_code: run modelling code that comes with the model.
        progress: called with (phase, done, total).

    Raises:
        ConfigError: there is no `config.json`, or it cannot be read.
        UnsupportedModelError: the model is not a decoder-only causal language model, or cannot be ported.
    """
    config = load_config(model, trust_remote_code) if isinstance(model, str | Path) else model
    require_causal_lm(config, trust_remote_code)
    generator = _Generator(config, trust_remote_code, progress or (lambda phase, done, total: None))
    generator.run()
    return generator.port(name)


def load_config(model_dir: str | Path, trust_remote_code: bool = False) -> Any:
    """The `transformers` config of a directory."""
    path = Path(model_dir) / "config.json"
    if not path.is_file():
        raise ConfigError(f"`{model_dir}` has no `config.json`", hint="give a Hugging Face model directory")
    try:
        raw = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(raw, dict) or "model_type" not in raw and "auto_map" not in raw:
        raise ConfigError(f"`{path}` has no `model_type`", hint="give a Hugging Face model directory")
    if "auto_map" in raw and not trust_remote_code and raw.get("model_type") not in transformers.CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} does not know the model type `{raw.get('model_type')}`",
            hint="the model brings its own code: read it, then allow it to run with `--trust-remote-code`",
        )
    if "auto_map" not in raw and raw["model_type"] not in transformers.CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} does not know the model type `{raw['model_type']}`",
            hint="`trtllm-port new --blank NAME` writes a port to fill in by hand",
        )
    try:
        return AutoConfig.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ConfigError(f"`{path}` is not a valid `{raw.get('model_type')}` config: {_first_line(error)}") from error
    except Exception as error:  # huggingface_hub's strict dataclasses have an error class of their own
        if "Validation" not in type(error).__name__ and "Strict" not in type(error).__name__:
            raise
        raise ConfigError(f"`{path}` is not a valid `{raw.get('model_type')}` config: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def require_causal_lm(config: Any, trust_remote_code: bool = False) -> type[nn.Module]:
    """The HF class of a decoder-only causal language model.

    Raises:
        UnsupportedModelError: it is an encoder, an encoder-decoder, quantized, or no language model.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"`{kind}` is an encoder-decoder model, not a decoder-only language model")
    if getattr(config, "quantization_config", None):
        raise UnsupportedModelError(
            f"the `{kind}` model is quantized", hint="give the model that it was quantized from"
        )
    mapping = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) in mapping:
        architectures = config.architectures or []
        encoder = [n for n in architectures if n.endswith(("ForMaskedLM", "Classification", "ForPreTraining"))]
        if encoder or getattr(config, "is_decoder", True) is False and _is_encoder(type(config)):
            raise UnsupportedModelError(
                f"`{(architectures or [kind])[0]}` is an encoder model, not a decoder-only causal language model"
            )
        found: Any = mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    remote = getattr(config, "auto_map", {}).get("AutoModelForCausalLM")
    if remote and trust_remote_code:
        return AutoModelForCausalLM  # type: ignore[no-any-return]  # its class is known once the code has run
    raise UnsupportedModelError(
        f"`{kind}` is no causal language model: transformers has no `…ForCausalLM` class for it"
    )


def _is_encoder(config_class: type[Any]) -> bool:
    """Whether a model type is an encoder unless its config says `is_decoder`: it has a masked language model, too."""
    return config_class in transformers.MODEL_FOR_MASKED_LM_MAPPING


class _Generator:
    def __init__(self, config: Any, trust_remote_code: bool, progress: Progress) -> None:
        self.config = config
        self.trust_remote_code = trust_remote_code
        self.progress = progress
        self.values = config_values(config)
        self.ledger = Ledger()
        self.samples: list[Lowered] = []
        self.classes: list[ClassText] = []
        self.title = "Port"

    def run(self) -> None:
        samples = make_samples(self.config)
        for index, sample in enumerate(samples):
            self.progress("trace", index, len(samples))
            self.samples.append(self._lower(sample))
        model = self.samples[0].trace.model
        self.title = source.class_title(type(model).__name__)
        self.classes = self._render(self.samples)
        self._change_every_key()
        self._finish_ledger()
        self.progress("trace", len(samples), len(samples))

    def _lower(self, sample: Sample) -> Lowered:
        return lower(trace(sample, trust_remote_code=self.trust_remote_code))

    def _render(self, samples: list[Lowered]) -> list[ClassText]:
        try:
            classes = make_classes(samples)
        except Differ as difference:
            raise UnsupportedModelError(
                f"the computation changes with the sizes of the model: {difference}",
                hint="write this part by hand: `trtllm-port new --blank NAME`",
            ) from difference
        writer = ClassWriter(samples, f"{self.title}Config")
        return [writer.write(item, is_model=item is classes[-1]) for item in classes]

    # the ledger

    def _change_every_key(self) -> None:
        """Change keys that are equal in all samples, one by one; keep the changes that the port can follow."""
        base = self.samples[0].trace.sample
        values = [config_values(sample.trace.sample.config) for sample in self.samples]
        constant = [key for key in values[0] if all(v.get(key) == values[0][key] for v in values)]
        keys = [key for key in constant if key not in LAYER_COUNTS]
        used = set().union(*(text.fields for text in self.classes))
        nullable = [key for key in used if key not in keys and optional(key, base.config)]
        for index, key in enumerate([*keys, *nullable]):
            self.progress("change config keys", index, len(keys) + len(nullable))
            others = [None] if key in nullable else alternatives(key, values[0][key], base.config)
            self._change(base, key, others, must_decide=key not in nullable)

    def _change(self, base: Sample, key: str, others: Iterable[Any], *, must_decide: bool) -> None:
        reason = "no other value could be tried"
        for other in others:
            try:
                changed = self._lower(base.with_key(key, other))
            except Exception as error:  # any: HF's code was given a value that it may not be made for
                reason = f"{other!r}: {type(error).__name__}: {_first_line(error)}"
                continue
            if same_computation(self.samples[0], changed):
                if must_decide:
                    self.ledger.ignored[key] = (
                        f"with {other!r} instead of {config_values(base.config)[key]!r} nothing changes"
                    )
                return
            try:
                classes = self._render([*self.samples, changed])
            except (UnsupportedModelError, NotExpressible) as error:
                reason = f"{other!r}: {_first_line(error)}"
                continue
            if sum(text.skeleton is not None for text in classes) > sum(t.skeleton is not None for t in self.classes):
                reason = f"{other!r}: cannot be expressed"
                continue
            self.samples.append(changed)
            self.classes = classes
            return
        if must_decide:
            self.ledger.fixed[key] = self.values.get(key)
            self.ledger.notes[key] = reason

    def _finish_ledger(self) -> None:
        used = set().union(*(text.fields for text in self.classes))
        ledger = self.ledger
        for key in self.values:
            if key in used:
                ledger.used[key] = "the port's sizes, numbers and options follow it"
                ledger.fixed.pop(key, None)
                ledger.notes.pop(key, None)
                ledger.ignored.pop(key, None)
            elif key not in ledger.fixed and key not in ledger.ignored:
                ledger.ignored[key] = "varied between the traced configurations, and nothing follows it"
        for key in self.config.to_dict():
            if key in META_KEYS or key.startswith("_"):
                ledger.ignored[key] = "says how the model is stored, named or called, not what it computes"

    # the port

    def port(self, name: str | None) -> PortSource:
        model = self.samples[0].trace.model
        hf_class = type(model)
        config_class = f"{self.title}Config"
        origin = "/".join(hf_class.__module__.split(".")) + ".py"
        columns = [config_values(sample.trace.sample.config) for sample in self.samples]
        fields = {
            key: source.field_type([column.get(key) for column in columns])
            for key in self.values
            if key in self.ledger.used and key not in source.BASE_FIELDS
        }
        files = {
            "model.py": source.model_file(self.classes, title=self.title, config_class=config_class, origin=origin),
            "config.py": source.config_file(
                fields,
                self.ledger.fixed,
                config_class=config_class,
                title=self.title,
                hf_config_class=type(self.config).__name__,
            ),
            "convert.py": source.convert_file(
                weight_names(self.samples[0]), title=self.title, architecture=hf_class.__name__
            ),
        }
        return PortSource(
            name=name or re.sub(r"\W", "_", self.config.model_type),
            architecture=hf_class.__name__,
            model_type=self.config.model_type,
            port_class=hf_class.__name__,
            config_class=config_class,
            files=files,
            skeletons=tuple(text.skeleton for text in self.classes if text.skeleton is not None),
            ledger=self.ledger,
            hf_class=f"{hf_class.__module__}.{hf_class.__name__}",
        )
