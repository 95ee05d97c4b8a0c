"""The generator: from a Hugging Face model to the source of its port, and the check of a finished port.

In: a config, or a model directory. Out: `PortSource`. The way of a model through the rooms here, each of which hands
data to the next, in the forms of `ir`:

    configs → record → recognise, rules, lower → merge → solve → write
"""

from trtllm_port.codegen.check import SelfCheck, check_port
from trtllm_port.codegen.generate import PortSource, generate_port
from trtllm_port.codegen.write.classes import Skeleton
from trtllm_port.codegen.write.ledger import Ledger

__all__ = ["Ledger", "PortSource", "SelfCheck", "Skeleton", "check_port", "generate_port"]
