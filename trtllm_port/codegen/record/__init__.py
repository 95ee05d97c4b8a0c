"""Phase 2: a tiny model runs once, and everything that it computes is recorded.

In: a `Sample`. Out: a `Trace`. Attention, masks, caches, experts and recurrences are recorded as one operation each; a
newcomer adds here what has to stand for a part of Hugging Face's code while it runs, and reports to the `Recorder`.
"""
