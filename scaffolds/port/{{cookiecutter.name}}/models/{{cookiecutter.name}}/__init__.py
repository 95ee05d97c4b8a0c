"""Port of {{ cookiecutter.architecture }} to native TensorRT."""

from __future__ import annotations

from .model import {{ cookiecutter.port_class }}

__all__ = ["{{ cookiecutter.port_class }}"]
