"""Functions of ours in place of transformers' own, while one of its models is made or runs.

In: a function or an observer, which knows nothing of transformers. Out: what transformers would call with its own names
and arguments, as plain tensors and numbers. Attention, masks and experts are registered by name; a cache tells what is
stored in it; functions of modelling files are replaced while a context lasts. A newcomer adds here the next thing that
transformers lets others define. What is recorded of it is decided elsewhere.

This is a room of its own beside the one that reads and loads models: those who verify or run a port need that one only.
"""
