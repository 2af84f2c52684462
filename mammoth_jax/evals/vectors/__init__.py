"""Recorded numbers of the released implementation, and the code that runs ours against them.

Each topic module offers ``RUNNERS``: case name to a function of a :class:`~mammoth_jax.evals.vectors.case.Case` that
returns every recorded output by name.  A topic with facts in ``config.json`` that are themselves to be compared also
offers ``COMPARED``: case name to a function of that configuration that returns the leaves (``a.b.0.c``) that the
runner must return as ``@a.b.0.c``.
"""

TOPICS = ("mammothtok", "vae", "dit", "flow", "prompts", "backbone", "vision", "end_to_end", "edit", "joint")
