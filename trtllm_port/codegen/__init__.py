"""The generator: from a Hugging Face model to the source of its port, and the check of a finished port.

It is a compiler whose phases stand in a room each, in this order; a phase imports from earlier ones only:

    configs → ir → record → rules → recognise → lower → merge → solve → write

`ir` is no phase: it holds the forms that they hand on. `lower` asks `rules` and `recognise`, `write` asks `solve`. What
composes them is here: `exploration.py` changes every key of a config and sees what follows, `generate.py` writes the
files, `check.py` compares a finished port with Hugging Face's model. `operation_record.py` writes down what was traced,
so that a later release can be compared with it.
"""

from trtllm_port.codegen.check import SelfCheck, check_port
from trtllm_port.codegen.generate import PortSource, generate_port
from trtllm_port.codegen.operation_record import TracedConfig, difference, operation_record
from trtllm_port.codegen.write.classes import Skeleton
from trtllm_port.codegen.write.ledger import Ledger

__all__ = [
    "Ledger",
    "PortSource",
    "SelfCheck",
    "Skeleton",
    "TracedConfig",
    "check_port",
    "difference",
    "generate_port",
    "operation_record",
]
