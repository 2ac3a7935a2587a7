"""What a forked process has to do anew: of its parent's threads it has one, of their locks all."""

import os
from collections.abc import Callable


def in_child(begin: Callable[[], None]) -> Callable[[], None]:
    """Have a function called in each forked process before it goes on, where there is fork.

    A lock that another thread held is held for good there: the function makes another.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin)
    return begin
