"""The methods of quantization that are read: what the config of each says, and how its tensors are laid out.

In: a config. Out: a scheme, and the layouts that read its weights. A newcomer adds a file with a `read_scheme` and
`LAYOUTS`, and its row in `table.py`.
"""
