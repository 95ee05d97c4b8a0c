"""Bugs that are edits of `model.py`: normalisations, activations, wiring, multipliers, soft caps."""

from __future__ import annotations

import ast
import re

from trtllm_port.verification.prove.bugs import Bug, at_attribute, at_called, source_bug
from trtllm_port.verification.prove.source_edits import (
    DELETE,
    Change,
    EditSpot,
    calls,
    own_call,
    with_argument,
    without_argument,
    written,
)

EPSILON = re.compile(r"eps(ilon)?\b")


def epsilon(template: str, *, root: bool = False) -> Change:
    """The epsilon that a normalisation is made with; of those beside the layers if `root`."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        if not isinstance(node, ast.Call) or not spot.attribute or spot.function != "__init__" or spot.layers != root:
            return None
        for place, argument in enumerate(node.args):
            if EPSILON.search(ast.unparse(argument)):
                return with_argument(node, place, template)
        return with_argument(node, "eps", template) if any(k.arg == "eps" for k in node.keywords) else None

    return change


def gain_offset(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The convention of the gain: `w` or `1 + w`."""
    call = calls(node, "RmsNorm")
    if call is None:
        return None
    if any(argument.arg == "offset" for argument in call.keywords):
        return without_argument(call, "offset")
    return with_argument(call, "offset", "1.0")


def norm_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """A layer's normalisation is not called."""
    name = own_call(node)
    return node.args[0] if isinstance(node, ast.Call) and _is_norm(name) and not spot.attends else None


def head_norm_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The normalisation of queries or keys is not called."""
    name = own_call(node)
    return node.args[0] if isinstance(node, ast.Call) and _is_norm(name) and spot.attends else None


def _is_norm(name: str) -> bool:
    return "norm" in name or name.startswith("ln_")


def other_activation(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Another activation than the config names."""
    call = calls(node, "Activation")
    return None if call is None else with_argument(call, 0, "'gelu' if {0} == 'silu' else 'silu'")


def near_activation(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """GELU by its tanh approximation instead of the error function, or the reverse."""
    call = calls(node, "Activation")
    return (
        None if call is None else with_argument(call, 0, "'gelu' if {0}.startswith('gelu_') else 'gelu_pytorch_tanh'")
    )


def activation_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """No activation."""
    return node.args[0] if isinstance(node, ast.Call) and own_call(node).startswith("act") else None


def gate_and_up(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The activation is applied to the other half of a gated MLP."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult) or not isinstance(node.left, ast.Call):
        return None
    if not own_call(node.left).startswith("act") or not isinstance(node.right, ast.Call):
        return None
    function = ast.unparse(node.left.func)
    return written(f"{function}({{0}}) * {{1}}", node.right, node.left.args[0])


def residual_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The input of a block is not added to its output."""
    operand = _residual(node)
    return (
        None
        if operand is None or not isinstance(node, ast.BinOp)
        else node.right
        if operand is node.left
        else node.left
    )


def residual_scaled(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The input of a block is added with a factor."""
    operand = _residual(node)
    if operand is None or not isinstance(node, ast.BinOp):
        return None
    other = node.right if operand is node.left else node.left
    return written("{0} * 0.9 + {1}", operand, other)


def residual_shared(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The second block of a layer adds the layer's input instead of the first block's output."""
    if not isinstance(node, ast.Assign) or ast.unparse(node) != "residual = hidden_states":
        return None
    return DELETE


def _residual(node: ast.AST) -> ast.expr | None:
    """Return the operand of an addition that is the residual."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add):
        return None
    for operand in (node.left, node.right):
        if isinstance(operand, ast.Name) and operand.id == "residual":
            return operand
    if isinstance(node.right, ast.Name) and node.right.id == "hidden_states":
        return node.right
    return None


def multiplier_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """A multiplier of embeddings or residuals is forgotten."""
    if (
        spot.function != "forward"
        or not isinstance(node, ast.BinOp)
        or not isinstance(node.op, ast.Mult)
        or spot.attends
    ):
        return None
    return node.left if re.fullmatch(r"self\.(config\.)?\w*(scale|multiplier)\w*", ast.unparse(node.right)) else None


def logits_multiplier_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The multiplier of the logits is forgotten."""
    if not spot.root or not isinstance(node, ast.Return) or not isinstance(node.value, ast.BinOp):
        return None
    if "softcap" in ast.unparse(node) or not ast.unparse(node.value.right).startswith("self.config."):
        return None
    return ast.Return(value=node.value.left)


def logits_scaled(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The head's output is a quarter of what it should be."""
    return written("{0} * 0.25", node) if isinstance(node, ast.Call) and own_call(node) == "lm_head" else None


def embedding_scaled(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Embeddings are multiplied by the root of the hidden size although Hugging Face does not."""
    if not spot.layers or not isinstance(node, ast.Call) or ("emb" not in own_call(node) and own_call(node) != "wte"):
        return None
    return None if "rotary" in own_call(node) else written("{0} * 8.0", node)


def soft_cap_left_out(*, root: bool) -> Change:
    """A soft cap is forgotten."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        if spot.root != root or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return None
        return node.func.value if node.func.attr == "tanh" else None

    return change


def half_softmax(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Softmax in the port's dtype where Hugging Face takes float32."""
    call = calls(node, "softmax")
    return None if call is None or not any(k.arg == "dtype" for k in call.keywords) else without_argument(call, "dtype")


def half_norm(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """A normalisation in the port's dtype where Hugging Face takes float32."""
    is_cast = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "float"
    if not is_cast or spot.function != "forward" or spot.attends or "orm" not in spot.class_name:
        return None
    return node.func.value  # type: ignore[attr-defined, no-any-return]


BUGS: tuple[Bug, ...] = (
    source_bug(
        "norm.epsilon.tenfold", "epsilon ten times too large", "norm.epsilon", epsilon("10 * {0}"), at_attribute
    ),
    source_bug(
        "norm.epsilon.second",
        "epsilon of a layer's second norm fixed at 1e-3",
        "norm.epsilon",
        epsilon("1e-3"),
        at_attribute,
        skip=1,
    ),
    source_bug(
        "norm.epsilon.final",
        "epsilon of the final norm fixed at 1e-3",
        "norm.epsilon",
        epsilon("1e-3", root=True),
        at_attribute,
    ),
    source_bug(
        "norm.gain_offset", "gain `w` instead of `1 + w`, or the reverse", "norm.gain_offset", gain_offset, at_attribute
    ),
    source_bug("norm.left_out", "a layer's norm is not called", "module.left_out", norm_left_out, at_called),
    source_bug(
        "norm.head_left_out",
        "the norm of queries or keys is not called",
        "module.left_out",
        head_norm_left_out,
        at_called,
    ),
    source_bug("mlp.activation.other", "another activation", "activation", other_activation, at_attribute),
    source_bug(
        "mlp.activation.near",
        "GELU by erf instead of tanh, or the reverse",
        "activation",
        near_activation,
        at_attribute,
    ),
    source_bug(
        "mlp.activation.left_out", "no activation", "activation module.left_out", activation_left_out, at_called
    ),
    source_bug("mlp.gate_up", "gate and up swapped in `forward`", "module.swapped", gate_and_up),
    source_bug("residual.left_out", "a residual is not added", "residual.left_out", residual_left_out),
    source_bug(
        "residual.left_out.second",
        "a layer's second residual is not added",
        "residual.left_out",
        residual_left_out,
        skip=1,
    ),
    source_bug("residual.scaled", "a residual is added 0.9 times", "residual.scale", residual_scaled),
    source_bug(
        "residual.shared",
        "both blocks of a layer add the layer's input",
        "residual.source module.input residual.left_out",
        residual_shared,
        skip=1,
    ),
    source_bug(
        "multiplier.left_out", "a multiplier of embeddings or residuals is forgotten", "multiplier", multiplier_left_out
    ),
    source_bug(
        "logits.multiplier.left_out",
        "the multiplier of the logits is forgotten",
        "multiplier",
        logits_multiplier_left_out,
    ),
    source_bug("logits.scaled", "logits a quarter of what they should be", "multiplier", logits_scaled),
    source_bug("embedding.scaled", "embeddings eight times too large", "multiplier residual.scale", embedding_scaled),
    source_bug("logits.soft_cap", "the soft cap of the logits is forgotten", "soft_cap", soft_cap_left_out(root=True)),
    source_bug(
        "attention.soft_cap",
        "the soft cap of the attention scores is forgotten",
        "soft_cap",
        soft_cap_left_out(root=False),
    ),
    source_bug("precision.softmax", "softmax in the port's dtype", "precision.softmax", half_softmax),
    source_bug("precision.norm", "a norm in the port's dtype", "precision.cast", half_norm),
)
