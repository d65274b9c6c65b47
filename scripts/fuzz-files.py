"""Feeds damaged files to `couplet import` and sees that each ends in one sentence: python scripts/fuzz-files.py COUPLET SECONDS [SEED] [FILE...]

Files (default: tests/golden/hdf5) are changed in a few bytes, numbers in them are made huge, or they are cut. Every run has 600 MB of
heap. A finding is an exit status other than 0 and 2, a panic, more than one line on stderr, something left behind, or 20 seconds; it is kept
under the name that is printed.
"""

import collections
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HEAP = 600 << 20
HUGE = [2**63 - 1, 2**64 - 1, 2**62, 2**40, 2**32 - 1, 2**31, 0]
KEYS = {"pair.h5mu": "#rna", "10x-multiome.h5": "#Peaks", "10x-genomes.h5": "#mm10", "no-x.h5ad": "#counts", "raw.h5ad": "#raw"}


def damaged(data):
    data = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at, how = random.randrange(len(data)), random.random()
        if how < 0.4:
            data[at] = random.choice([0, 1, 127, 128, 255, random.randrange(256)])
        elif how < 0.7:
            data[at : at + 8] = random.choice(HUGE).to_bytes(8, "little")[: len(data) - at]
        elif how < 0.85:
            data[at] ^= 1 << random.randrange(8)
        else:
            del data[at + 1 :]
    return bytes(data)


def finding(couplet, path, key, out):
    """What is wrong with how the file is taken, if anything, and the exit status."""
    command = [couplet, "import", "--missing", "nan", "--modality", f"rna={path}{key}", "--out", str(out)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_DATA, (HEAP, HEAP))
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", preexec_fn=limit, timeout=20)
    except subprocess.TimeoutExpired:
        return "20 seconds", None
    left = [p.name for p in out.parent.iterdir() if p != path]
    if run.returncode not in (0, 2) or "panicked" in run.stderr:
        return run.stderr[-500:], run.returncode
    if run.returncode == 2 and (left or run.stderr.strip().count("\n")):
        return f"{run.stderr} left: {left}", run.returncode
    return None, run.returncode


def main():
    couplet, seconds = sys.argv[1], float(sys.argv[2])
    random.seed(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    golden = pathlib.Path(__file__).parent.parent / "tests/golden/hdf5"
    files = [pathlib.Path(f) for f in sys.argv[4:]] or sorted(f for f in golden.iterdir() if f.suffix != ".py")
    codes, findings, end = collections.Counter(), 0, time.time() + seconds
    while time.time() < end:
        file = random.choice(files)
        folder = pathlib.Path(tempfile.mkdtemp())
        path = folder / file.name
        path.write_bytes(damaged(file.read_bytes()))
        wrong, code = finding(couplet, path, KEYS.get(file.name, ""), folder / "out")
        codes[code] += 1
        if wrong:
            findings += 1
            kept = f"finding-{findings}-{file.name}"
            shutil.copy(path, kept)
            print(f"{kept}: {wrong}")
        shutil.rmtree(folder)
    print(f"{sum(codes.values())} files, exit statuses {dict(codes)}, {findings} findings")
    sys.exit(findings > 0)


main()
