"""The ports that are there: workspaces, and the registry that finds the port of an architecture.

In: a workspace's directory, an architecture. Out: a `PortEntry`, whose own code runs within `port_code`, which tells
its faults from ours. A newcomer adds here what is asked of a port that is written; writing one is `porting`.
"""

from trtllm_port.registry.ports import PortEntry, find_port, list_ports

__all__ = ["PortEntry", "find_port", "list_ports"]
