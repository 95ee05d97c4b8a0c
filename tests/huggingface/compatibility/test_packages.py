"""Packages that a model's own code imports, and files beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trtllm_port.errors import EnvironmentLackError
from trtllm_port.huggingface.loading import make_model
from trtllm_port.huggingface.models import load_config, require_causal_lm

IDS = torch.tensor([[3, 4, 5]])


def test_a_package_that_is_never_used_may_be_absent(odd_model: Callable[..., Path]) -> None:
    imports = "import no_such_package.fast as fast\nfrom no_such_other import Base\n\nclass Unused(Base):\n    pass"
    config = load_config(odd_model(imports=imports), trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    assert make_model(config)(IDS).logits.shape == (1, 3, 31)
    assert not {"no_such_package", "no_such_other"} & sys.modules.keys()


def test_one_that_is_used_is_told_with_the_line(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(imports="from no_such_package import turn", forward="return turn(input_ids)")
    config = load_config(directory, trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    with pytest.raises(EnvironmentLackError, match=r"modeling_odd\.py:\d+.*no_such_package\.turn") as caught:
        make_model(config)(IDS)
    assert caught.value.hint == "`pip install no_such_package`"
    assert caught.value.exit_code == 3


def test_code_that_tries_to_import_one_sees_that_it_is_absent(odd_model: Callable[..., Path]) -> None:
    imports = "try:\n    import no_such_package\nexcept ImportError:\n    no_such_package = None"
    config = load_config(odd_model(imports=imports), trust_remote_code=True)
    kind = require_causal_lm(config, trust_remote_code=True)
    assert sys.modules[kind.__module__].no_such_package is None


def test_a_file_beside_is_one_module_however_it_is_imported(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(imports="from configuration_odd import OddConfig as Same\nassert Same is OddConfig")
    assert require_causal_lm(load_config(directory, trust_remote_code=True), trust_remote_code=True)
    assert "configuration_odd" not in sys.modules
