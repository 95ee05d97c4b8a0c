"""The stage that writes ports: bodies in, files and a registry entry in a workspace out.

Ensures that the workspace holds the whole port and its registry entry, or is as it was before.
"""

from trtllm_port.scaffold.blank import BlankSource, blank_source
from trtllm_port.scaffold.manifest import edited_files
from trtllm_port.scaffold.names import default_name
from trtllm_port.scaffold.templates import render_template
from trtllm_port.scaffold.write import WrittenPort, refuse_existing, write_port

__all__ = [
    "BlankSource",
    "WrittenPort",
    "blank_source",
    "default_name",
    "edited_files",
    "refuse_existing",
    "render_template",
    "write_port",
]
