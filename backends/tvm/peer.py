"""What a server says it is, and whether it counts right: before its figures are believed."""

from __future__ import annotations

from typing import Any

import numpy as np

from eopt.backends.tvm import place as places
from eopt.backends.tvm.place import Place

_FAMILIES = ("", "native", "generic")  # of `mcpu`: many processors, so none is compared; so is `x86-64-v3`


def claims(session: Any, target: Any) -> dict[str, str]:
    """What the far end reports about itself, of what the target names; a runtime without a compiler says less."""
    kind = str(target.kind.name)
    if kind == "cuda":
        return {"arch": f"sm_{str(session.cuda(0).compute_version).replace('.', '')}"}
    if kind != "llvm":
        return {}
    names = {"mcpu": "target.llvm_get_system_cpu", "mtriple": "target.llvm_get_system_triple"}
    return {field: said for field, name in names.items() if (said := _asked(session, name)) is not None}


def contradiction(said: dict[str, str], target: Any) -> str | None:
    """How a server's claims differ from the target it should be; `None` where they do not."""
    wanted = {name: str(value) for name, value in target.attrs.items() if isinstance(value, str)}
    machine, cpu = said.get("mtriple", "").partition("-")[0], wanted.get("mcpu", "")
    expected = wanted.get("mtriple", "").partition("-")[0]
    if machine and expected and machine != expected:
        return f"it is a {machine}, not a {expected}"
    if "mcpu" in said and cpu not in _FAMILIES and not cpu.startswith("x86-64") and said["mcpu"] != cpu:
        return f"its processor is {said['mcpu']}, not {cpu}"
    if "arch" in said and "arch" in wanted and said["arch"] != wanted["arch"].removesuffix("a"):
        return f"its GPU is {said['arch']}, not {wanted['arch']}"
    return None


def miscounts(place: Place, target: Any) -> str | None:
    """How the answer of a small kernel is wrong; `None` where it is right."""
    import tvm
    from tvm import te

    from eopt.backends.tvm.schedule import as_it_comes

    numbers = te.placeholder((256,), "int32", name="numbers")
    result = te.compute((256,), lambda i: numbers[i] * 3 + i.astype("int32"), name="result")
    function = te.create_prim_func([numbers, result])
    module = place.load(places.compiled(as_it_comes(function, target), target))
    given = np.random.default_rng(0).integers(-(2**20), 2**20, 256, np.int32)
    args = [tvm.runtime.tensor(array, place.device) for array in (given, np.zeros_like(given))]
    module["main"](*args)
    right = np.array_equal(args[1].numpy(), given * 3 + np.arange(256, dtype=np.int32))
    return None if right else "a probe kernel gave wrong numbers"


def _asked(session: Any, name: str) -> str | None:
    try:
        return str(session.get_function(name)())
    except Exception:  # a runtime without the compiler does not have it
        return None
