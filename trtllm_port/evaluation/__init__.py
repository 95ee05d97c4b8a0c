"""The stages `run` and `summarize`: an engine's text, by itself and beside Hugging Face's.

In: an engine directory, a tokenizer, prompts or articles. Out: `RunResult`, and `SummarizeResult` with ROUGE of both
sides and whether they differ. A newcomer adds a source of articles in `datasets.py`, a kind of prompts in `prompts.py`.
"""
