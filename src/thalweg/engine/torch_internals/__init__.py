"""Every private part of torch (and of Python's lists) that is touched, each with a fallback.

A part is looked for, tried out, and reported as missing where it is not what is expected: whoever
uses it then does without.

=====================  ==========================================  ===============================
part                   what for                                    without it
=====================  ==========================================  ===============================
skipped code objects   ``torch.compile`` leaves the engine out     ``torch.compiler.disable``
exported C functions   asking tensors where they are               Python asks, one by one
object layout          telling that objects are what they were     Python compares them
TensorImpl layout      fetching cache lines ahead of their use     nothing is fetched ahead
dispatch keys          telling plain tensors at one look           Python asks, one by one
key sets by name       telling memory from what only looks so      several functions are called
kinds of tensors       telling those that stand for others         they count as ordinary ones
the thread's keys      telling that operations are watched         several functions; without
                                                                   these, operations compute
setters of modes       putting modes back in C                     torch's context managers
autocast at one look   a quick answer where it is off              each device is asked
use count of storages  loading over memory that is nobody else's   states get new memory
version counters       leaving a model as it was, by these too     they rise
safe globals           NumPy's numbers in files of one thread      such files are refused
=====================  ==========================================  ===============================
"""

from thalweg.engine.torch_internals.compiler import not_traced as not_traced
from thalweg.engine.torch_internals.native import SCALAR_TYPES as SCALAR_TYPES
from thalweg.engine.torch_internals.native import ImplLayout as ImplLayout
from thalweg.engine.torch_internals.native import ListLayout as ListLayout
from thalweg.engine.torch_internals.native import PlainKeys as PlainKeys
from thalweg.engine.torch_internals.native import exported_functions as exported_functions
from thalweg.engine.torch_internals.native import impl_layout as impl_layout
from thalweg.engine.torch_internals.native import impl_offset as impl_offset
from thalweg.engine.torch_internals.native import list_layout as list_layout
from thalweg.engine.torch_internals.native import plain_keys as plain_keys
from thalweg.engine.torch_internals.native import undefined_impl as undefined_impl
from thalweg.engine.torch_internals.reading import with_safe_globals as with_safe_globals
from thalweg.engine.torch_internals.tensors import is_fake as is_fake
from thalweg.engine.torch_internals.tensors import is_of_transform as is_of_transform
from thalweg.engine.torch_internals.tensors import is_wrapped as is_wrapped
from thalweg.engine.torch_internals.tensors import key_sets as key_sets
from thalweg.engine.torch_internals.tensors import missing_memory as missing_memory
