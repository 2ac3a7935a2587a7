"""LLVM: the functions of a source as one module, optimized for this processor, as object code."""

import functools
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from llvmlite import binding, ir

from thalweg.engine.backends.cpu.compiler.kinds import int64
from thalweg.engine.backends.cpu.compiler.translator import Translator
from thalweg.engine.backends.cpu.machine_code import processor


def compile_functions(functions: Mapping[str, FunctionType]) -> bytes:
    """Compile functions of one int64 that return nothing.

    Args:
        functions: by the symbols that they get.

    Returns:
        Object code, ``void(int64)`` for each symbol.

    Raises:
        CompileError: a function is none that the compiler takes.
    """
    code: bytes = _machine().emit_object(optimized(functions))
    return code


def optimized(functions: Mapping[str, FunctionType]) -> Any:
    """The same as a module of LLVM's, whose text shows what the processor will do."""
    module = binding.parse_assembly(translated(functions))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    builder = binding.create_pass_builder(_machine(), options)
    builder.getModulePassManager().run(module, builder)
    return module


def translated(functions: Mapping[str, FunctionType]) -> str:
    """The text of a module that does what the source says, step by step."""
    module = ir.Module()
    machine = _machine()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    for symbol, function in functions.items():
        kind = ir.FunctionType(ir.VoidType(), [int64.type])
        Translator(ir.Function(module, kind, symbol)).translate(function)
    return str(module)


@functools.cache
def _machine() -> Any:
    """What LLVM compiles for: this processor, and code that is loaded by this process."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    cpu, features = processor()
    # Code of this kind may be loaded far from what it calls.
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=relocation, codemodel="jitdefault", jit=True
    )
