"""The stage `new`: makes a port and writes it into a workspace, all of it or nothing.

In: a model directory, or a name. Out: a port package and its registry entry. A newcomer adds a file to every port here.
"""

from trtllm_port.porting.create import PortResult, create_blank_port, create_port

__all__ = ["PortResult", "create_blank_port", "create_port"]
