"""Everything that touches transformers and the hub.

In: a model's directory or id. Out: its config, its weights as they are stored, the model itself, what its modules give.
What differs between releases of transformers is decided here; a newcomer who supports a new release starts here.
"""
