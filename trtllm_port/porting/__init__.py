"""The stage `new`: makes a port and writes it into a workspace, all of it or nothing.

In: a model directory, or the name of a blank port. Out: a package in the workspace, its entry in the registry, its
test. A newcomer who wants another file in every port adds it to the templates in `scaffolds/port/`.
"""

from trtllm_port.porting.create import PortResult, create_blank_port, create_port

__all__ = ["PortResult", "create_blank_port", "create_port"]
