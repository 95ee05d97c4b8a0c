"""What both sides are fed, and what a verification may be told.

In: settings, a tokenizer. Out: `Stimulus`.
"""
