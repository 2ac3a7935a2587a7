"""The eager back end."""

import numpy as np
import torch

from thalweg.engine.backends.base import Unit
from thalweg.engine.formats import REAL_PARTS
from thalweg.engine.reduced import reduced_constants, values_between
from thalweg.rule.operations import OPERATIONS, eager_dtype


class EagerUnit(Unit):
    def __init__(self, program, slots, scalars):
        super().__init__(program, slots, scalars)
        self._sig = [self._signature(s) for s in slots]

    def _signature(self, s):
        p = s.param
        return (p.dtype, p.device, p.shape)

    def look(self, exposed):
        self.absent = [k for k, s in enumerate(self.slots) if s.gradient is None]
        self._g = [s.gradient for s in self.slots]
        for g, s in zip(self._g, self.slots):
            if g is not None and (
                g.dtype != s.kind.dtype or g.is_sparse != s.kind.sparse or g.shape != s.param.shape
            ):
                return False
        return self._sig == [self._signature(s) for s in self.slots]

    def run(self, stage, known):
        prog = self.program
        st = prog.stages[stage]
        sums = np.zeros((len(st.reductions), len(self.slots)))
        red = reduced_constants(prog, stage)
        between = []
        if red:
            by = np.asarray(self.constants.values, dtype=float)[self.constants.case_of]
            between = values_between(
                prog,
                stage,
                list(by.T),
                known,
                np.asarray([s.numbers for s in self.slots], dtype=float),
            )
        for k, slot in enumerate(self.slots):
            if k in self.absent:
                continue
            with torch.set_grad_enabled(bool(slot.group.get("differentiable"))):
                self._one(stage, k, slot, red, between, sums)
        return list(sums)

    def _one(self, stage, k, slot, red, between, sums):
        prog = self.program
        st = prog.stages[stage]
        g = self._g[k]
        ts = {"p": slot.param, "g": g, **{n: slot.tensor(n) for n in prog.states}}
        rows = None
        if g.is_sparse and slot.kind.rows:
            g = g.coalesce()
            rows = tuple(g.indices())
            ts = {n: t[rows] for n, t in ts.items() if n != "g"} | {"g": g.values()}
        elif g.is_sparse:
            ts["g"] = g.to_dense()
        real = {
            n: torch.view_as_real(t.resolve_conj()) if t.dtype in REAL_PARTS else t
            for n, t in ts.items()
        }
        wide = any(t.dtype is torch.float64 for t in real.values())
        compute = torch.float64 if wide else torch.float32
        vals = self.constants.values[self.constants.case_of[k]]
        env = dict(zip(prog.constants, vals))
        for node, v in zip(red, between):
            env[node] = float(np.broadcast_to(v, len(self.slots))[k])
        token = eager_dtype.set(compute)

        def get(n):
            if n.op == "literal":
                return n.value
            if n.op == "load":
                if n not in env:
                    env[n] = real[n.detail].to(compute)
                return env[n]
            v = env[n]
            return v

        try:
            for node in st.body:
                args = [get(a) for a in node.args]
                args = [
                    bool(a) if s.is_condition and not isinstance(a, torch.Tensor) else a
                    for a, s in zip(args, node.args)
                ]
                if any(isinstance(a, torch.Tensor) for a in args):
                    env[node] = OPERATIONS[node.op].tensor(*args)
                else:
                    env[node] = OPERATIONS[node.op].scalar(*args)
            for r, node in enumerate(st.reductions):
                sums[r, k] = float(get(node.args[0]).sum(dtype=torch.float64))
            new = {}
            for name, node in st.stores:
                v = get(node)
                like = ts[name]
                v = torch.as_tensor(v, dtype=compute)
                if v is env.get(node) and node.op == "load":
                    v = v.clone()
                if like.dtype in REAL_PARTS:
                    v = torch.view_as_complex(
                        v.to(REAL_PARTS[like.dtype]).expand(*like.shape, 2).contiguous()
                    )
                new[name] = v.to(like.dtype).expand(like.shape)
            for name, v in new.items():
                target = slot.tensor(name)
                if rows is not None:
                    target.index_put_(rows, v)
                elif name != "p" and slot.group.get("differentiable"):
                    slot.state.put(name, v)
                else:
                    target.copy_(v)
        finally:
            eager_dtype.reset(token)


class EagerBackend:
    name = "eager"
    reason = "operations of torch, tensor by tensor"

    def obstacle(self, subject):
        return None

    def units(self, program, slots, scalars):
        return [EagerUnit(program, slots, scalars)]
