"""What all sides are fed, in which precisions, and what a verification may be told.

In: settings, a config, a tokenizer. Out: `Stimulus`, `Phase`. A newcomer adds a setting, or a length of text past which
models compute otherwise.
"""
