"""Phase 1: from the user's config to tiny ones whose sizes are all different.

In: a Hugging Face config. Out: `Samples`, one config for each trace and one that no trace has seen. A newcomer adds the
name of a size, with its column, to `size_tables.py`.
"""
