"""Everything that touches transformers and the hub: nothing else imports them.

In: a model's directory or id, or a config. Out: the config, the weights as they are stored, the model itself, what its
modules give. `interception` lets functions of ours take the place of transformers' own while a model is made or runs.
What of transformers somebody needs next, a newcomer adds here, as a function that says what it gives and takes no names
or classes that only transformers knows.

What differs between releases is decided here, too. Where a new release is likely to break something:

    caches.py               what the argument and the field for a cache are called
    loading.py              how a way to compute attention and experts is chosen; which weights keep a type of their own
    conversion_mapping.py   what is done to stored tensors, and which are ignored: private parts of transformers
    text_part.py, models.py which class is listed for a config
    interception/           the arguments that masks, attention and experts are asked with, the layers of a cache, the
                            files whose functions are no modelling code: see there

Try a release with the tests of this room, then `tests/codegen`; and generate some ports with both releases: where a
modelling file has not changed, not a byte of a port may.
"""
