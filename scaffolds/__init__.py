"""Cookiecutter templates: `port` (what every port consists of), `blank` (bodies to fill in by hand), `workspace`."""
