"""Sources of small models that bring their own code, written as such code is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONFIGURATION = """
from transformers import PretrainedConfig


class PebbleConfig(PretrainedConfig):
    model_type = "pebble"

    def __init__(self, vocab_size=101, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=640, rope_theta=20000.0, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads, self.max_position_embeddings = num_key_value_heads, max_position_embeddings
        self.rope_theta = rope_theta
        super().__init__(**kwargs)
"""
COMMON = """
import math
import unused_package
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.import_utils import is_torch_fx_available
from configuration_pebble import PebbleConfig


def tables(length, size, theta):
    speed = theta ** -(torch.arange(0, size, 2).float() / size)
    angle = torch.outer(torch.arange(length).float(), speed)
    return torch.cat([angle.cos(), angle.cos()], -1), torch.cat([angle.sin(), angle.sin()], -1)


def turned(x, cos, sin):
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.kept = config.num_attention_heads, config.num_key_value_heads
        self.size = config.hidden_size // self.heads
        self.query = nn.Linear(config.hidden_size, self.heads * self.size, bias=False)
        self.key = nn.Linear(config.hidden_size, self.kept * self.size, bias=False)
        self.value = nn.Linear(config.hidden_size, self.kept * self.size, bias=False)
        self.out = nn.Linear(self.heads * self.size, config.hidden_size, bias=False)

    def forward(self, x, cos, sin, mask, past):
        rows, length, _ = x.shape
        query = self.query(x).view(rows, length, self.heads, self.size).transpose(1, 2)
        key = self.key(x).view(rows, length, self.kept, self.size).transpose(1, 2)
        value = self.value(x).view(rows, length, self.kept, self.size).transpose(1, 2)
        query, key = turned(query, cos, sin), turned(key, cos, sin)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        present = key, value
        key, value = (y.repeat_interleave(self.heads // self.kept, 1) for y in present)
        @ATTEND@
        return self.out(seen.transpose(1, 2).reshape(rows, length, -1)), present


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.up = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.down = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def forward(self, x, cos, sin, mask, past=None):
        seen, present = self.attention(self.norm(x), cos, sin, mask, past)
        x = x + seen
        return x + self.down(F.silu(self.up(x))), present
"""
BY_HAND = """scores = query @ key.transpose(-1, -2) / math.sqrt(self.size) + mask
        seen = F.softmax(scores.float(), -1).to(value.dtype) @ value"""
IN_FLOAT32 = """scores = (query @ key.transpose(-1, -2) / math.sqrt(self.size) + mask).float()
        seen = (F.softmax(scores, -1) @ value).to(value.dtype)"""
BY_TABLES = """slots = key.shape[2]
        scores = query @ key.transpose(-1, -2) / self.scale
        scores = torch.where(self.shown[:, :, slots - length : slots, :slots], scores, torch.finfo(scores.dtype).min)
        seen = F.softmax(scores.float(), -1).to(value.dtype) @ value"""
TABLES = """nn.Module):
    def __init__(self, config):
        super().__init__()
        self.register_buffer("shown", torch.ones(1, 1, 640, 640, dtype=torch.bool).tril())  # which checkpoints hold
        size = torch.tensor(config.hidden_size // config.num_attention_heads)
        self.scale = size.float().sqrt().to(torch.get_default_dtype())
"""
BY_TORCH = "seen = F.scaled_dot_product_attention(query, key, value, is_causal=mask is None)"
INNER = """
class PebbleModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        size = config.hidden_size // config.num_attention_heads
        cos, sin = tables(config.max_position_embeddings, size, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, input_ids, past_key_values=None):
        start = 0 if past_key_values is None else past_key_values[0][0].shape[2]
        length = input_ids.shape[1]
        if self.cos[0, 0] != 1:
            raise ValueError("the table is lost")
        x = self.embed(input_ids)
        hidden = torch.full((length, start + length), torch.finfo(x.dtype).min, dtype=x.dtype).triu(start + 1)
        presents = []
        for number, layer in enumerate(self.layers):
            past = None if past_key_values is None else past_key_values[number]
            here = slice(start, start + length)
            x, present = layer(x, self.cos[here], self.sin[here], hidden[None, None], past)
            presents.append(present)
        return x, presents


class PebbleForCausalLM(PreTrainedModel):
    config_class = PebbleConfig
    _tied_weights_keys = ["head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.model = PebbleModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, past_key_values=None, use_cache=None):
        x, presents = self.model(input_ids, past_key_values)
        return self.head(x), presents
"""
FLAT = """
class PebbleForCausalLM(PreTrainedModel):
    config_class = PebbleConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.head.weight = self.embed.weight
        self.size, self.theta = config.hidden_size // config.num_attention_heads, config.rope_theta
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, tokens):
        x = self.embed(tokens)
        cos, sin = (table.to(x.dtype)[None, None] for table in tables(tokens.shape[1], self.size, self.theta))
        for block in self.blocks:
            x, _ = block(x, cos, sin, None)
        return CausalLMOutputWithPast(logits=self.head(self.norm(x)))
"""


MIXTURE = """
class Embedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)

    def forward(self, input_ids):
        return self.words(input_ids)


class Expert(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.moe_intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.moe_intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.moe_intermediate_size, config.hidden_size, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Mixture(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.chosen = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList([Expert(config) for _ in range(config.num_experts)])

    def forward(self, x):
        shape = x.shape
        x = x.view(-1, shape[-1])
        weights, ids = torch.topk(self.gate(x).softmax(-1), self.chosen, dim=-1, sorted=False)
        return self.moe_infer(x, ids, weights).view(shape)

    def moe_infer(self, x, topk_ids, topk_weight):
        counts = topk_ids.new_zeros((topk_ids.shape[0], len(self.experts)))
        counts.scatter_(1, topk_ids, 1)
        order = topk_ids.view(-1).argsort()
        given = x[order // topk_ids.shape[1]]
        outputs, start = [], 0
        for i, number in enumerate(counts.sum(dim=0).cpu().numpy()):
            if number:
                outputs.append(self.experts[i](given[start:start + number]))
            start += number
        outputs = torch.cat(outputs)
        found = torch.empty_like(outputs)
        found[order] = outputs
        found = found.view(*topk_ids.shape, -1).type(topk_weight.dtype).mul_(topk_weight.unsqueeze(dim=-1))
        return found.sum(dim=1).type(x.dtype)


class MixtureLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.mixture = Mixture(config)

    def forward(self, x, cos, sin):
        x = x + self.attention(x, cos, sin, None, None)[0]
        return x + self.mixture(self.norm(x))


class PebbleForCausalLM(PreTrainedModel):
    config_class = PebbleConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = Embedding(config)
        self.layers = nn.ModuleList([MixtureLayer(config) for _ in range(config.num_hidden_layers)])
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.size, self.theta = config.hidden_size // config.num_attention_heads, config.rope_theta
        self.post_init()

    def get_input_embeddings(self):
        return self.embed.words

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids):
        x = self.embed(input_ids)
        cos, sin = (table.to(x.dtype)[None, None] for table in tables(input_ids.shape[1], self.size, self.theta))
        for layer in self.layers:
            x = layer(x, cos, sin)
        return CausalLMOutputWithPast(logits=self.head(x))
"""

TOKENS_FIRST = {  # hidden states [L, B, E], as of Megatron
    "rows, length, _ = x.shape": "length, rows, _ = x.shape",
    "self.query(x).view(rows, length, self.heads, self.size).transpose(1, 2)": (
        "self.query(x).view(length, rows, self.heads, self.size)"
    ),
    "self.key(x).view(rows, length, self.kept, self.size).transpose(1, 2)": (
        "self.key(x).view(length, rows, self.kept, self.size)"
    ),
    "self.value(x).view(rows, length, self.kept, self.size).transpose(1, 2)": (
        "self.value(x).view(length, rows, self.kept, self.size).permute(1, 2, 0, 3)"
    ),
    "query, key = turned(query, cos, sin), turned(key, cos, sin)": (
        "query, key = (turned(y, cos, sin).permute(1, 2, 0, 3) for y in (query, key))"
    ),
    "seen.transpose(1, 2).reshape(rows, length, -1)": "seen.permute(2, 0, 1, 3).reshape(length, rows, -1)",
    "x = self.embed(tokens)": "x = self.embed(tokens).transpose(0, 1)",
    "table.to(x.dtype)[None, None]": "table.to(x.dtype)[:, None, None]",
    "self.head(self.norm(x))": "self.head(self.norm(x)).transpose(0, 1)",
}

CACHED = {  # a cache of transformers, given back as a tuple of tuples to whoever gave none; and a loader of its own
    "self.attention = Attention(config)": "self.attention = Attention(config)\n        self.attention.number = number",
    "def __init__(self, config):\n        super().__init__()\n        self.norm": (
        "def __init__(self, config, number):\n        super().__init__()\n        self.norm"
    ),
    "key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)": (
        "key, value = past.update(key, value, self.number)"
    ),
    "[Layer(config) for _ in range(": "[Layer(config, number) for number in range(",
    "def forward(self, tokens):": """@classmethod
    def from_pretrained(cls, path, *args, **kwargs):
        with open(f"{path}/params.json") as file:
            return cls(PebbleConfig(**json.load(file)))

    def forward(self, tokens, past_key_values=None, use_cache=None):
        given = past_key_values
        if use_cache and given is None:
            past_key_values = DynamicCache()
        start, length = 0 if past_key_values is None else past_key_values.get_seq_length(), tokens.shape[1]
        hidden = torch.full((length, start + length), -1e9, dtype=self.head.weight.dtype).triu(start + 1)""",
    "tables(tokens.shape[1], self.size, self.theta))": (
        "tables(start + length, self.size, self.theta))\n        cos, sin = cos[:, :, start:], sin[:, :, start:]"
    ),
    "block(x, cos, sin, None)": "block(x, cos, sin, hidden[None, None], past_key_values)",
    "return CausalLMOutputWithPast(logits=self.head(self.norm(x))": """if given is None and past_key_values is not None:
            past_key_values = tuple((layer.keys, layer.values) for layer in past_key_values.layers)
        return CausalLMOutputWithPast(logits=self.head(self.norm(x)), past_key_values=past_key_values""",
    "import math": "import json\nimport math\nfrom transformers import Cache, DynamicCache",
}

ASKED = "return self.moe_infer(x, ids, weights).view(shape)"
IN_A_LOOP = """total = torch.zeros_like(x)
        mask = F.one_hot(ids, num_classes=len(self.experts)).permute(2, 1, 0)
        for number in range(len(self.experts)):
            place, token = torch.where(mask[number])
            found = self.experts[number](x[token]) * weights[token, place, None]
            total.index_add_(0, token, found.to(x.dtype))
        return total.view(shape)"""

BEYOND = """
    def base(self, length):
        dynamic = (self.config.rope_parameters or {}).get("rope_type") == "dynamic"
        return self.theta * (1 + dynamic * (length > self.config.max_position_embeddings))

    def forward(self, tokens):"""


def write_own_code(path: Path, name: str, configuration: str, source: str, **values: Any) -> Path:
    """The directory of a model with code of its own, whose classes are called after it."""
    (path / f"configuration_{name}.py").write_text(configuration)
    (path / f"modeling_{name}.py").write_text(source)
    title = name.title()
    names = {
        "AutoConfig": f"configuration_{name}.{title}Config",
        "AutoModelForCausalLM": f"modeling_{name}.{title}ForCausalLM",
    }
    config = {"architectures": [f"{title}ForCausalLM"], "auto_map": names, "model_type": name, **values}
    (path / "config.json").write_text(json.dumps(config))
    return path


def pebble(path: Path, source: str, **values: Any) -> Path:
    """The directory of a model whose modelling file is `source`."""
    return write_own_code(path, "pebble", CONFIGURATION, source, **values)


def rewritten(source: str, changes: Iterable[tuple[str, str]]) -> str:
    """A source with texts in place of others, each of which it has."""
    for usual, written in changes:
        assert usual in source
        source = source.replace(usual, written)
    return source
