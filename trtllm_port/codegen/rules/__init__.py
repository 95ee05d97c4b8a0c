"""Phase 3: torch operations as nodes in the words of `trtllm_port.layers`, one short rule for each.

In: an `Operation`. Out: a `Node`, or the `Value` that it equals. A newcomer adds a rule to the table of its family.
"""
