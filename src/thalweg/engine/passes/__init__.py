"""Passes: kernels called on a few tensors at a time. Losses use them.

====================  ==============================================================================
``memory.py``         whether kernels may read a tensor, and may run at all
``base.py``           what passes share: the arguments of a kernel, kept from call to call
``elementwise.py``    a formula's program over the elements of tensors
``rows.py``           a row formula's program over the rows of tensors
``row_printer.py``    the source of a row kernel: frame, addresses, numbers of the row
``row_loops.py``      the source of its loops over the elements of a row
``row_spelling.py``   the names in that source
``handwritten.py``    kernels written by hand: ``_ctc.py``, ``_multilabel_margin.py``
====================  ==============================================================================
"""
