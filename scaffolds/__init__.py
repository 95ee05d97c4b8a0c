"""Cookiecutter templates: data only.

`port` is the tree of files of every port; the bodies that go into it come from the generator and from `generated`, or
from `blank` for a port written by hand. `workspace` is what a fresh workspace gets once.
"""
