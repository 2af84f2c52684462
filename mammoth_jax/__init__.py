"""MammothModa2 in JAX: understand and draw pictures with one model.

Importing this package is cheap: nothing of JAX is loaded before a submodule asks for it.
"""

__version__ = "0.1.0"
