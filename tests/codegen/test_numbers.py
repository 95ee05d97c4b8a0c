"""Numbers that go through tensors: what they were before they were rounded, and what they are of the config."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from trtllm_port.codegen.configs.depth import require_small
from trtllm_port.codegen.configs.resizing import Plan, resize
from trtllm_port.codegen.ir.expressions import Float32, Rounded, close
from trtllm_port.codegen.ir.nodes import Node
from trtllm_port.codegen.ir.record import Attribute, Operation, Value
from trtllm_port.codegen.recognise.constants import exact_number
from trtllm_port.codegen.rules.translation import translate
from trtllm_port.codegen.solve.solver import Solver
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.layers import normal_quantile


def test_a_number_of_float32_is_the_shortest_that_gives_it() -> None:
    number = Float32(torch.tensor(0.1).item())
    assert repr(float(number)) == "0.1"
    assert close(number, 0.1 + 1e-9)
    assert not close(number, 0.1001)
    assert close(Rounded(number), 0.1001)


def test_a_rounded_buffer_is_what_a_model_in_float32_has() -> None:
    model = nn.Module()
    model.scale = nn.Buffer(torch.tensor(2.0) ** -0.5, persistent=False)
    trace = cast("Any", SimpleNamespace(in_float32=lambda: model))
    assert abs(exact_number(Attribute("scale", persistent=False), trace) - 2**-0.5) < 1e-7


def test_quantiles_of_the_normal_distribution_are_as_in_torch() -> None:
    shares = (0.95, 0.9, 0.8)
    wanted = tuple(float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(share))) for share in shares)
    assert torch.allclose(torch.tensor([normal_quantile(share) for share in shares]), torch.tensor(wanted), atol=1e-5)
    found = Solver({"config.share": shares}).solve(tuple(map(Float32, wanted)))
    assert found is not None
    assert found.text == "normal_quantile(config.share)"


def test_lists_of_numbers_vary_and_shares_stay_shares() -> None:
    values = {"sparsity": [0.95, 0.0, 0.5], "numbers": [2.0, 3.0]}
    first, second = (resize(transformers.LlamaConfig(), values, Plan(), index) for index in (0, 1))
    assert first == values
    assert second["sparsity"][1] == 0.0
    assert all(0 < second["sparsity"][i] < 1 and second["sparsity"][i] != values["sparsity"][i] for i in (0, 2))
    assert second["numbers"] != values["numbers"]


def test_a_model_that_is_not_small_is_never_made() -> None:
    small = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, vocab_size=99)
    with require_small():
        transformers.LlamaForCausalLM(small)
    with pytest.raises(UnsupportedModelError, match="more than 200,000,000 parameters"), require_small():
        transformers.LlamaForCausalLM(transformers.LlamaConfig())
    transformers.LlamaForCausalLM(small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_epsilon_that_torch_takes_where_none_is_given(dtype: torch.dtype) -> None:
    x = Value(torch.full((2, 8), 1e-3, dtype=dtype))
    out = Value(F.rms_norm(x.tensor, (8,)))
    found = translate(Operation("rms_norm", (x, (8,)), {}, (out,), None))
    assert isinstance(found, Node)
    assert found.args[1] is None
    torch.testing.assert_close(F.rms_norm(x.tensor, (8,), eps=found.args[2]), out.tensor)
    other = F.rms_norm(x.tensor, (8,), eps=10 * found.args[2])
    assert not torch.allclose(other, out.tensor, rtol=1e-2)
