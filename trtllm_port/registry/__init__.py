"""Ports that are there: workspaces, the registry that finds the port of an architecture, and its code.

In: a directory, an architecture. Out: `PortEntry`. A newcomer adds here what is known of a port without running it.
"""

from trtllm_port.registry.ports import PortEntry, find_port, list_ports

__all__ = ["PortEntry", "find_port", "list_ports"]
