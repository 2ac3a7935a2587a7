"""What the operations of rules are called in torch, but for arithmetic."""

# Operations that torch has under a name of its own.
UNARY = {name: name for name in ("abs", "sqrt", "exp", "log", "log1p", "expm1", "tanh", "sigmoid")}
UNARY |= {"atan": "atan", "sign": "sign", "not": "logical_not", "stored": "stored"}
COMPARISONS = {"less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne"}
TURNED = {"lt": "gt", "le": "ge", "eq": "eq", "ne": "ne"}  # a < b as b > a
LIMITS = {"maximum": "clamp_min", "minimum": "clamp_max"}
LOGICAL = {"and": "logical_and", "or": "logical_or"}
