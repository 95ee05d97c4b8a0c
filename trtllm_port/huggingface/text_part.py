"""The language model inside a config of several models (vision or sound beside text): the one place that decides.

A port is of the text part: the config of the part, and the class that transformers has for it. Everything that reads a
model directory's config asks here, so a directory of the whole model is as good as one of its text part.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.compatibility.remote_code import is_remote
from trtllm_port.huggingface.configs import unquantized, whole_config


def load_hf_config(hf_model_dir: str | Path, trust_remote_code: bool = False) -> Any:
    """The `transformers` config of a directory's language model (see `text_part`), as if it were not quantized.

    Its `architectures` are the names under which a port of it may be registered.

    Raises:
        ConfigError: there is none, or it is of an unknown type.
        EnvironmentLackError: code that comes with the model needs what is not installed.
    """
    whole = unquantized(whole_config(hf_model_dir, trust_remote_code))
    with reading(Path(hf_model_dir) / "config.json", ConfigError):
        config = text_part(whole)
        config.architectures = architectures(config, trust_remote_code)
    return config


def loads_whole(config: Any) -> bool:
    """Whether transformers loads the whole model, under other names than the text part's, where a config has one."""
    listed = listed_class(config)
    return text_part(config) is not config and listed is not None and listed.config_class is type(config)


def architectures(config: Any, trust_remote_code: bool = False) -> list[str]:
    """The names under which a port of a language model may be registered, the one that `new` registers first.

    That is the class which `AutoModelForCausalLM` makes for the config. What `config.json` itself says comes after it:
    an older or a base class's name (`LLaMAForCausalLM`, `LlamaModel`), for transformers does not ask; or a name that
    somebody chose for a port written by hand.
    """
    remote = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM") if trust_remote_code else None
    listed = listed_class(config)
    made = str(remote).rpartition(".")[2] if remote else listed.__name__ if listed is not None else None
    return list(dict.fromkeys([*([made] if made else []), *map(str, config.architectures or ())]))


def listed_class(config: Any) -> Any:
    """The class of transformers' own (or a registered) causal language model for a config; None if there is none.

    transformers looks for the name of the config's class, and one that comes with a model may have that of another. A
    class that comes with a model was registered for this very one; the config class that it names itself may be another
    copy, which transformers makes of each file with those that it imports.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = type(config)
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(kind, None)
    if found is None or not is_remote(kind):
        return found
    return found if found.config_class is kind or is_remote(found) else None


def text_part(config: Any) -> Any:
    """The config of the text part, naming its own class as architecture; any other config as it is.

    A config has a text part if it holds the configs of several models, or that of text alone although its model takes
    images, say, and transformers has a causal language model for the one of text: either listed for that config's type,
    or listed for the whole and made from that config.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    text = config.get_text_config(decoder=True)
    listed = listed_class(config)
    parts = len(getattr(config, "sub_configs", None) or {})
    if text is config or not parts or (parts == 1 and not _takes_more_than_text(listed)):
        return config
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        found = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    elif listed is not None and listed.config_class is type(text):
        found = listed
        AutoModelForCausalLM.register(type(text), found, exist_ok=True)  # transformers lists it for the whole only
    else:
        return config
    part = copy.deepcopy(text)
    part.architectures = [found.__name__]
    part.dtype = text.dtype or config.dtype
    if listed is not None and listed.config_class is type(config):  # the head is the whole's, and so is its flag
        part.tie_word_embeddings = getattr(config, "tie_word_embeddings", part.tie_word_embeddings)
    return part


def _takes_more_than_text(listed: Any) -> bool:
    return not isinstance(getattr(listed, "input_modalities", "text"), str)
