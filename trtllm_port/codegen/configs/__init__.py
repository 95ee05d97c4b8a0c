"""Phase 1: from the user's config to tiny ones whose sizes are all different.

In: a Hugging Face config. Out: `Samples`, one config for each trace. A newcomer adds a size's name in `size_tables.py`.
"""
