"""Phase 3: parts of a record that are one thing in the words of `trtllm_port.layers`.

In: operations of a record. Out: nodes, or None where a recogniser does not know them. A newcomer adds a recogniser.
"""
