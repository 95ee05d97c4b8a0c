"""`generate_port`: from a Hugging Face config to the source of a port."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trtllm_port.codegen.configs.computed_keys import written_values
from trtllm_port.codegen.exploration import Exploration
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.operation_record import TracedConfig, traced_config
from trtllm_port.codegen.write import source
from trtllm_port.codegen.write.classes import Skeleton
from trtllm_port.codegen.write.composite_models import add_whole_names, whole_names
from trtllm_port.codegen.write.ledger import Ledger
from trtllm_port.codegen.write.weight_names import WeightNames, weight_names
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.quoting import literal
from trtllm_port.huggingface.compatibility.remote_code import is_remote
from trtllm_port.huggingface.conversion_mapping import ignored_names
from trtllm_port.huggingface.models import load_config, load_whole_config, require_causal_lm, source_files
from trtllm_port.huggingface.quiet import quiet_transformers

FIRST_STEP = (
    "Hugging Face's own code fails for several new tokens on a filled cache, and not for a single one: traced was the "
    "first step of a text, and the port is compared on a prompt and on steps of one token"
)


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
        traced: what a record of the traced operations is made from.
        sources: files whose code was traced → their digests; see `source_files`.
        transformers_version: of the library whose source was traced.
        packages: of other ports, from which it takes classes.
        like: the port that it is written after.
        remarks: what a reader has to know of how Hugging Face's model was traced.
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
    traced: TracedConfig | None = None
    sources: dict[str, str] = field(default_factory=dict)
    transformers_version: str = field(default_factory=partial(version, "transformers"))
    packages: tuple[Path, ...] = ()
    like: str | None = None
    remarks: tuple[str, ...] = ()


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
    with quiet_transformers():
        found = Exploration(config, trust_remote_code, progress or (lambda phase, done, total: None))
    hf_class = type(found.samples[0].trace.model)
    return PortSource(
        name=name or re.sub(r"\W", "_", config.model_type),
        architecture=hf_class.__name__,
        model_type=config.model_type,
        port_class=hf_class.__name__,
        config_class=f"{found.title}Config",
        files=_files(found, hf_class, _names(found, model, trust_remote_code)),
        skeletons=tuple(text.skeleton for text in found.classes if text.skeleton is not None),
        ledger=found.ledger,
        hf_class=f"{hf_class.__module__}.{hf_class.__name__}",
        traced=traced_config(found.samples[0].trace.sample.config, hf_class.__name__, found.followed),
        sources={name: file_digest(path) for name, path in source_files(found.samples[0].trace.model).items()},
        remarks=(FIRST_STEP,) if _is_first_step(found.samples[0]) else (),
    )


def _is_first_step(sample: Lowered) -> bool:
    return sample.trace.keeps_cache and not sample.trace.sample.past


def _names(found: Exploration, model: str | Path | Any, trust_remote_code: bool) -> WeightNames:
    """Names of the tensors in files, those of a model that holds the ported one included."""
    names = weight_names(found.samples[0])
    names.ignored = set().union(*(ignored_names(sample.trace.model) for sample in found.samples))
    whole = load_whole_config(model, trust_remote_code) if isinstance(model, str | Path) else found.config
    if type(whole) is not type(found.config):
        with quiet_transformers():
            add_whole_names(names, whole_names(whole, type(found.samples[0].trace.model), found.config))
    return names


def _files(found: Exploration, hf_class: type[Any], names: WeightNames) -> dict[str, str]:
    config_class = f"{found.title}Config"
    columns = [sample.trace.sample.values for sample in found.samples]
    kinds = {
        key: source.field_type([column.get(key) for column in columns])
        for key in {**found.values, **found.computed}
        if key in found.fields and key not in source.BASE_FIELDS
    }
    null = [key for key, kind in kinds.items() if found.values.get(key, 0) is None and "None" not in kind]
    defaults = dict.fromkeys(found.absent) | (
        written_values(found.config, null, found.trust_remote_code) if null else {}
    )
    fields = {key: kind + (f" = {literal(defaults[key])}" if key in defaults else "") for key, kind in kinds.items()}
    return {
        "model.py": source.model_file(
            found.classes, title=found.title, config_class=config_class, origin=_origin(hf_class)
        ),
        "config.py": source.config_file(
            fields,
            found.ledger.fixed | found.entries,
            accepted=found.ledger.accepted,
            longest=min(found.longest.values(), default=None),
            config_class=config_class,
            title=found.title,
            hf_config_class=type(found.config).__name__,
        ),
        "convert.py": source.convert_file(names, title=found.title, architecture=hf_class.__name__),
    }


def _origin(hf_class: type[Any]) -> str:
    parts = hf_class.__module__.split(".")
    if is_remote(hf_class):  # a copy in the cache, under a name of the moment
        return f"{parts[-1]}.py, which comes with the model"
    return "/".join(parts) + ".py"


__all__ = ["PortSource", "generate_port", "load_config", "require_causal_lm"]
