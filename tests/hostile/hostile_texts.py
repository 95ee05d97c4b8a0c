"""Texts that a language would take for its own, and what tells whether it has."""

from __future__ import annotations

import ast
import os
import subprocess
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import pytest

from trtllm_port.foundation.quoting import literal

CANARY = "TRTLLM_PORT_CANARY"
RUN = f"__import__('os').environ.__setitem__('{CANARY}', 'sang')"
HOSTILE = [
    *("'", '"', "\\", "\\'", '\\"', "'''", '"""', '\\"""', "\\\\", "C:\\Users\\me", "\\N{DIGIT ONE}"),
    *("\\x41\\u0041", "\\"),
    *("\n", "\r", "\r\n", "\t", "\f", "\v", "\0", "a\0b", "\x1b", "\x7f", "\x85", "\x9b31m", "\u2028", "\u2029"),
    *("\ufeff", "\uffff"),
    *("{{ 7 * 7 }}", "{% raw %}", "{% endraw %}", "{# #}", "{{ cookiecutter.name }}", "{{", "}}", "{%", "${HOME}"),
    *("%(x)s", "{x}"),
    *("</script><script>alert(1)</script>", "]]>", "<!--", "-->", "<![CDATA[", "&amp;", "&#0;", '" onload="x'),
    *("' onload='x", "</td></table>", "</pre></code>"),
    *("`", "```", "|", "| a | b |\n|---|---|", "# h", "- x", "[a](javascript:x)", "---", "***", "<b>"),
    *("[bold red]x[/]", "[/]", "\\[x]", ":smile:"),
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "\u202eabc\u202c", "\u2066x\u2069", "\u200f", "\ud800"),
    *("\udcff", "\U0001f600", "\U000e0041"),
    *("; touch x", "$(touch x)", "`touch x`", "&& x", "> x", "*", "~", "-rf", "", " ", "a b", "#", "# fmt: off"),
    *("é", "日本"),
    *(f'": {RUN}, #', f"': {RUN}, #", f'"\n{RUN}\n"', f"\\\": {RUN}, #", f'"""\n{RUN}\n"""', f"\n{RUN}\n"),
    *(f"{{{{ {RUN} }}}}", f"x\r{RUN}", f"x\x0c{RUN}"),
    *("a\\", f": {RUN}, #", f"\\', {RUN}, '", f'" + {RUN} + "', f"x: int = {RUN}  #", f"x = {RUN}", f"x.y[{RUN}]"),
    *("config.hidden_size", "self.config.x", "layer_idx", "class", "import os", "__class__", "a-b", "a.b", "0"),
    *("²", "ſ", "ﬁ"),
    "x" * 100_000,
    "\"\\'\n" * 25_000,
]  # fmt: skip
BENIGN = [f"text{number}" for number in range(len(HOSTILE))]
KEYS = [text for text in HOSTILE if len(text) < 100]
IDS = [ascii(text)[:40] for text in HOSTILE]
hostile = pytest.mark.parametrize("text", HOSTILE, ids=IDS)


def parts(source: str) -> Counter[str]:
    """What a Python file consists of, but for the text of its strings: kinds of nodes, and every name."""
    nodes = list(ast.walk(ast.parse(source)))
    names = (getattr(node, key, None) for node in nodes for key in ("id", "attr", "name", "arg", "module"))
    return Counter([*(type(node).__name__ for node in nodes), *(name for name in names if isinstance(name, str))])


def strings(source: str) -> set[str]:
    nodes = ast.walk(ast.parse(source))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def acts(text: str) -> set[str]:
    """The characters of a text that do something on a terminal, or are none."""
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return {c for c in text if unicodedata.category(c) in kinds or unicodedata.bidirectional(c) in directions} - {
        *"\n\t"
    }


@dataclass(frozen=True)
class Bodies:
    """A port whose files hold what would be templates."""

    architecture: str = "ToyForCausalLM"
    port_class: str = "ToyForCausalLM"
    files: dict[str, str] = field(
        default_factory=lambda: {
            "config.py": f"TEXTS = {literal([*HOSTILE])}\n",
            "model.py": "from .config import TEXTS\n\n\nclass ToyForCausalLM:\n    texts = TEXTS\n",
            "convert.py": "WEIGHT_MAP = {}\n",
        }
    )


def shell_words(command: str) -> list[str]:
    """The words that a shell makes of a command."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]
