"""A port's config: a frozen dataclass with Hugging Face's names and resolved values.

In: `config.json`. Out: `PretrainedConfig`, rotary frequencies. A newcomer adds a rope type in `rope.py`.
"""
