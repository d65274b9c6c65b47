"""Files of golden values: numbers rounded to float32 going in and coming out, and the command line of their makers.

    python3 -m venv env && env/bin/pip install torch numpy safetensors
    env/bin/python tests/golden/FOLDER/make.py            # writes tests/golden/FOLDER/CASE.safetensors
    env/bin/python tests/golden/FOLDER/make.py --check    # writes nothing; fails if a file would change

Written with Python 3.11, torch 2.15.0 (CPU, one thread), numpy 2.4.6, safetensors 0.8.0.

What a maker starts from, data and initial values, is rounded to float32 before anything is computed, so the float32 engine starts from
exactly the same numbers; everything after is float64 and, where a maker does not say otherwise, only rounded for storage.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save


def exact(a):
    """The nearest numbers that float32 holds, as a float64 tensor of the same shape."""
    return torch.from_numpy(np.asarray(a, np.float32).astype(np.float64))


def stored(t, dtype=np.float32):
    """A tensor as an array of the same shape; a single number is [1]."""
    return np.atleast_1d(t.detach().numpy()).astype(dtype)


def under(prefix, tensors, dtype=np.float32):
    """Tensors by name as arrays, the prefix before every name."""
    return {f"{prefix}{name}": stored(t, dtype) for name, t in tensors.items()}


def packed(arrays, sort_keys=False, **metadata):
    """The bytes of a file of these arrays, with JSON for metadata: one key at most, the library writes several in no fixed order."""
    text = {key: json.dumps(value, sort_keys=sort_keys) for key, value in metadata.items()}
    return save({name: np.ascontiguousarray(a) for name, a in sorted(arrays.items())}, text or None)


def flags(options):
    """Options as a user types them."""
    return [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in options.items()]


def sizes(of):
    """Of modalities by name: features [F], or the size of images [C, H, W]."""
    return [f if isinstance(f, list) else [f] for f in of.values()]


def stray(name, run, run32, chance):
    """How far `run32`, a run computed in float32, strays from the same in float64, a measure for tolerances. A run has tensors by the
    name of their parameter, `gradient` of the first step and `after` the last, and lists of a number a step. `chance` marks, in the shape
    of each parameter, what only rounding moves."""
    known = lambda key, p: torch.where(chance[p], 0, run32[key][p].double() - run[key][p])
    length = {p: g.norm() for p, g in run["gradient"].items()}
    floor = 1e-6 * max(length.values())
    found = {key: max(abs(a / b - 1) for a, b in zip(run32[key], run[key])) for key, v in run.items() if isinstance(v, list)}
    found["gradient"] = max((known("gradient", p).norm() / (length[p] + floor)).item() for p in length)
    found["after"] = max(known("after", p).abs().max().item() for p in length)
    assert found["losses"] < 1e-5 and found["after"] < 1e-5, f"{name}: {found}: a unit flips on rounding, take another seed"
    return found


def course(losses, stray):
    """What to say of a run: its first and last loss, and how far float32 strays."""
    return f"loss {losses[0]:10.6f} -> {losses[-1]:10.6f}   float32: " + ", ".join(f"{key} {v:.1e}" for key, v in stray.items())


def numbers(terms):
    """What to say of loss terms."""
    return ", ".join(f"{name} {v.item():.6g}" for name, v in terms.items())


def main(script, cases, make):
    """The command line of `script`: `make(name, case)` gives the bytes of a case's file, which lies beside it, and what to say of it."""
    torch.set_num_threads(1)
    check = sys.argv[1:] == ["--check"]
    assert check or not sys.argv[1:], "usage: make.py [--check]"
    for name, case in cases.items():
        data, said = make(name, case)
        path = Path(script).parent / f"{name}.safetensors"
        if check:
            assert path.read_bytes() == data, f"{path.name} would change"
        else:
            path.write_bytes(data)
        print(f"{name:22s} {len(data):6d} bytes  {said}")
