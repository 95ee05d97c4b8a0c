from __future__ import annotations

from trtllm_port.verification.taps.names import nearest_tapped_parent
from trtllm_port.verification.taps.pairing import ModuleFacts, pair

MODULES = {
    "model": ModuleFacts(class_name="Model", holds_parameters=True),
    "model.norm": ModuleFacts(class_name="Norm", holds_parameters=True),
    "model.dropout": ModuleFacts(class_name="Dropout", holds_parameters=False),
    "model.unused": ModuleFacts(class_name="Unused", holds_parameters=True),
}
ORDER = ("model:input", "model.norm:input", "model.norm", "model.dropout:input", "model.dropout", "model")


def test_a_module_with_parameters_must_be_there() -> None:
    pairing = pair(ORDER, ["model"], MODULES, ["model.norm.weight"])
    assert pairing.missing == ("model.norm",)
    assert pairing.paired == ("model",)


def test_a_module_without_parameters_and_an_input_may_be_absent() -> None:
    pairing = pair(ORDER, ["model", "model.norm"], MODULES, ["model.norm.weight"])
    assert not pairing.missing
    assert set(pairing.ignored) == {"model:input", "model.norm:input", "model.dropout:input", "model.dropout"}


def test_an_invented_module_with_parameters_is_extra_and_a_helper_is_not() -> None:
    taps = ["model", "model.norm", "model.gain", "model.helper", "model.unused"]
    pairing = pair(ORDER, taps, MODULES, ["model.norm.weight", "model.gain.weight"])
    assert pairing.extra == ("model.gain",)
    assert pairing.ignored["model.helper"] == "a helper of the port without parameters"
    assert pairing.ignored["model.unused"] == "Hugging Face passes no tensor here"


def test_pairs_are_in_the_order_of_execution() -> None:
    assert pair(ORDER, ["model", "model.norm", "model.norm:input"], MODULES, []).paired == (
        "model.norm:input",
        "model.norm",
        "model",
    )


def test_a_list_of_layers_is_no_parent() -> None:
    assert nearest_tapped_parent("model.layers.0", {"model", "model.layers.0"}) == "model"
    assert nearest_tapped_parent("model", {"model"}) == ""


def test_experts_of_a_list_that_the_port_computes_in_one_are_not_missing() -> None:
    expert = ModuleFacts(class_name="MLP", holds_parameters=True)
    modules = {
        "mlp": expert,
        "mlp.experts": ModuleFacts(class_name="ModuleList", holds_parameters=True),
        "mlp.experts.0": expert,
        "mlp.experts.0.up": expert,
    }
    order, parameters = ("mlp.experts.0.up", "mlp.experts.0", "mlp"), ["mlp.experts.up"]
    pairing = pair(order, ["mlp.experts", "mlp"], modules, parameters)
    assert (pairing.paired, pairing.missing, pairing.extra) == (("mlp",), (), ())
    assert "`mlp.experts` in one" in pairing.ignored["mlp.experts.0.up"]
    assert pair(order, ["mlp"], modules, parameters).missing == ("mlp.experts.0.up", "mlp.experts.0")
