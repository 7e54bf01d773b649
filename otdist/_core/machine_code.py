"""Machine code for this processor from LLVM's intermediate code, and its way into memory."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from typing import Any

from llvmlite import binding

_engines: list[Any] = []  # their code is called as long as the process lives


@cache
def processor() -> tuple[str, str]:
    """The model of this processor and its features, or what numba is told to take for them."""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        with contextlib.suppress(RuntimeError):  # LLVM does not know it
            features = binding.get_host_cpu_features().flatten()
    return name or binding.get_host_cpu_name(), features or ""


def is_x86() -> bool:
    """Whether this is a processor of the x86 family."""
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


def _target_machine() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    name, features = processor()
    options = {"reloc": "static" if is_x86() else "default", "codemodel": "jitdefault", "jit": True}
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(cpu=name, features=features, opt=3, **options)


def compile_module(module: Any) -> bytes:
    """Optimise a module; its object file."""
    machine = _target_machine()
    module.triple, module.data_layout = binding.get_process_triple(), str(machine.target_data)
    options = binding.create_pipeline_tuning_options()
    options.speed_level, options.loop_vectorization, options.slp_vectorization = 3, True, False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def load(object_file: bytes, symbol: str) -> int:
    """Put an object file into memory; the address of its function of this name."""
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target_machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(object_file))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(symbol)
