"""Stages `run` and `summarize`: an engine's text, by itself and beside Hugging Face's.

In: an engine directory, prompts or articles. Out: texts, ROUGE, a verdict. A newcomer adds a data set or a metric.
"""
