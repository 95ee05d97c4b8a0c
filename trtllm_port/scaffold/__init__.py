"""The stage `new`: a model's config in, a port package in the workspace out, checked against Hugging Face.

Ensures that the workspace holds the whole port and its registry entry, or is as it was before.
"""

from trtllm_port.scaffold.create import ScaffoldResult, create_blank_port, create_port
from trtllm_port.scaffold.write import WrittenPort, write_port

__all__ = ["ScaffoldResult", "WrittenPort", "create_blank_port", "create_port", "write_port"]
