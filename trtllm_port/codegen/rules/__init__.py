"""Phase 3: torch's operations as nodes in the words of `trtllm_port.layers`, one short rule for each.

In: an `Operation`. Out: a `Node`, or the `Value` that the operation gives back. A newcomer adds a rule to the table of
its family.
"""
