"""How losses are evaluated: value and gradients by kernels, with autograd around them.

========================  ==========================================================================
``evaluator.py``          the contract: what autograd asks of a loss, whatever kind of loss it is
``autograd.py``           the autograd functions, the only ones that losses have
``elements.py``           ``evaluate``: formulas with a value for each element
``rows.py``               ``evaluate_rows``: formulas with a value for each row
``row_operands.py``       how the operands of a row formula lie in memory
``chunks.py``             a linear layer and a row formula, for a few rows at a time
``ctc.py``                connectionist temporal classification, by a kernel written by hand
``operands.py``           dtype, shape and memory order of operands; whether kernels can read them
``tensor_operations.py``  the same values without a kernel
========================  ==========================================================================

With a reduction, the forward pass computes the gradients too, while the operands are in cache, and
backward returns them. Without one, forward and backward are a pass each. What has no kernel (other
devices, dtypes and tensor types, ``torch.compile``, second derivatives) runs as tensor operations.
"""
