"""Phase 5: from the record of a trace to blocks of nodes, with what the rules and the recognisers know.

In: a `Trace`. Out: `Lowered`, a block for each call: layers in a loop, no-ops and dead code gone. A newcomer adds a
pass over the operations of a call, or over the nodes of a block.
"""
