"""The foreach back end: a rule as calls of ``torch._foreach_*``, on any device."""
