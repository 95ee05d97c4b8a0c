"""Phase 4: what a record spells in many operations, and `trtllm_port.layers` has in one word.

In: operations or a call of a record. Out: fewer operations, nodes or a basic layer; None where a recogniser does not
know them. A newcomer adds a recogniser, and asks it in `lower/lowering.py`.
"""
