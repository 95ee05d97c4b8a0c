"""Stages `run` and `summarize`: an engine's text, by itself and beside Hugging Face's."""
