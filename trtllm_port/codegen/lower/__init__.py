"""Phase 4: from the record of a trace to blocks of nodes.

In: a `Trace`. Out: `Lowered`, a block for each call, its layers in a loop, no-ops and dead code gone.
A newcomer adds a pass over blocks.
"""
