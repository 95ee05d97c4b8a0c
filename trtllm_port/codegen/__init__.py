"""The generator: from a Hugging Face model to the source of its port, and the check of a finished port.

The way of a model through the files here:

    sizes → tracing (recorder, hooks) → lowering (operations, probing, rotary, folding)
          → merging (instances, alignment, variants)
          → classes (scope, conditions, expressions, statements, branches, printing, formatting)
          → source;  generate, ledger;  check
"""

from trtllm_port.codegen.check import SelfCheck, check_port
from trtllm_port.codegen.generate import PortSource, generate_port
from trtllm_port.codegen.write.classes import Skeleton
from trtllm_port.codegen.write.ledger import Ledger

__all__ = ["Ledger", "PortSource", "SelfCheck", "Skeleton", "check_port", "generate_port"]
