#!/usr/bin/env python3
"""What inferring a correspondence costs and how well landmarks agree with solving between all cells, as Markdown tables.

    python3 -m venv env && env/bin/pip install numpy scipy torch
    env/bin/python scripts/match-figures.py SCRATCH [PART ...] [--cells N,..] [--rounds N] [--threads N] [--couplet PROGRAM] [--data DATA]

    solver      seconds a step of `couplet match` and its own memory, beside the same step in PyTorch in the order of products that UnionCom's
                sources have and with two of them saved (8 n^3 operations, as its authors write it 16 n^3, here 6 n^3), in turn
    landmarks   matches by way of landmarks against those of the whole solution: share of the ten best in common, own type
                (DATA holds scgem and unioncom-simu1 as they were published)
    large       100,000 x 100,000 cells: seconds, memory, own branch

A step is the difference between a long and a short run. Memory is the process's own at its peak (RssAnon).
"""
import argparse
import pathlib
import re
import statistics
import time

from figures import header, measured, row, run

PARTS = ["solver", "landmarks", "large"]
STEPS = {1000: (10, 50), 3000: (2, 8)}


def torch_step(n, form, threads, steps):
    """Seconds of a step of the solver in PyTorch, on tables of any values."""
    import torch

    torch.set_num_threads(threads)
    ka, kb, f, m1, m2 = (torch.rand(n, n) / n for _ in range(5))
    mu, lam, s = torch.zeros(n, 1), torch.zeros(n, 1), torch.zeros(n, 1)
    eps, rho, a, kk = 0.01, 10.0, 1.0, float((ka * ka).sum())
    times = []
    for t in range(1, steps + 2):
        begun = time.time()
        if form == "8 n^3":
            g = f @ kb
            w = ka @ g
            a = float((w * f).sum()) / kk
            d = 4 * (g @ (f.T @ g)) - 4 * a * w
        else:
            d = 4 * (f @ kb @ f.T @ f @ kb) - 4 * a * (ka @ f @ kb)
            a = float(torch.trace(ka @ f @ kb @ f.T)) / kk
        d += mu + lam.T + rho * (f.sum(1, keepdim=True) + f.sum(0, keepdim=True) + s.T - 2)
        m1.mul_(0.9).add_(d, alpha=0.1)
        m2.mul_(0.999).addcmul_(d, d, value=0.001)
        f = (1 - eps) * f + eps * (f - m1 / (1 - 0.9**t) / ((m2 / (1 - 0.999**t)).sqrt() + 1e-7)).clamp_min(0)
        rows, columns = f.sum(1)[:, None], f.sum(0)[:, None]
        s = (1 - eps) * s + eps * (s - (lam + rho * (columns - 1 + s))).clamp_min(0)
        mu, lam = mu + eps * (rows - 1), lam + eps * (columns - 1 + s)
        times.append(time.time() - begun)
    return statistics.median(times[1:])


def top_ten(path):
    import scipy.sparse

    f = scipy.sparse.load_npz(path).tocsr()
    rows = (f.indices[f.indptr[i] : f.indptr[i + 1]][f.data[f.indptr[i] : f.indptr[i + 1]].argsort()[::-1][:10]] for i in range(f.shape[0]))
    return [set(r.tolist()) for r in rows]


def own(said):
    found = re.search(r"best match has the same \S+\s+([0-9.]+)", said)
    return float(found.group(1)) if found else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    p.add_argument("--cells", default="1000,3000", help="of the solver's table")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--couplet", default="target/release/couplet")
    p.add_argument("--data", type=pathlib.Path)
    a = p.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)
    how = ["--device", "cpu", "--threads", a.threads]

    def branching(cells):
        dataset = a.scratch / f"branching-{cells}"
        if not dataset.exists():
            run(a.couplet, "simulate", "branching", "--cells", cells, "--out", dataset)
        return dataset

    def match(dataset, out, *words):
        return measured([a.couplet, "match", dataset, "--out", out, *how, *words])

    def solver():
        header("cells each way", "ours, s a step", "PyTorch, 8 n^3", "ours over it", "PyTorch, as the sources write it", "ours over it", "own memory over 32 n^2 bytes")
        for n in (int(c) for c in a.cells.split(",")):
            dataset, (few, many) = branching(n), STEPS.get(n, (5, 20))
            ours, peaks, theirs = [], [], {"8 n^3": [], "sources": []}
            for _ in range(a.rounds):
                runs = [match(dataset, a.scratch / "f.npz", "--landmarks", 0, "--set", f"steps={k}") for k in (few, many)]
                ours.append((runs[1][0] - runs[0][0]) / (many - few))
                peaks.append(runs[1][1])
                for form, times in theirs.items():
                    times.append(torch_step(n, form, a.threads, max(3, many // 4)))
            told = [n, f"{statistics.median(ours):.4f}"]
            for times in theirs.values():
                told += [f"{statistics.median(times):.4f}", f"{statistics.median(o / t for o, t in zip(ours, times)):.2f}"]
            row(*told, f"{max(peaks) / (32 * n * n):.2f}")

    def landmarks():
        sets = [(branching(1500), 1500)]
        for name, files in [
            ("scgem", ["expr=scgem/expression.csv", "meth=scgem/methylation.csv"]),
            ("unioncom-simu1", ["one=unioncom-simu1/domain1_rebuilt.npy", "two=unioncom-simu1/domain2.npy"]),
        ]:
            dataset = a.scratch / name
            if a.data and not dataset.exists():
                given = [w for f in files for w in ("--modality", f"{f.split('=')[0]}={a.data / f.split('=')[1]}")]
                run(a.couplet, "import", *given, "--labels", a.data / name / "cells.csv", "--pairs", "by-row", "--out", dataset)
            if dataset.exists():
                sets.append((dataset, int(re.search(r"x (\d+) of", match(dataset, a.scratch / "f.npz", "--landmarks", 20)[2]).group(1))))
        header("set", "solver", "landmarks", "own type", "of the ten best in common with the whole", "seconds")
        for dataset, cells in sets:
            label = ["--labels", "branch" if "branching" in dataset.name else "type"]
            for chosen in ["gromov"] + ["prime-dual"] * (cells <= 500):
                words = [*label, "--set", f"solver={chosen}"]
                seconds, _, said = match(dataset, a.scratch / "whole.npz", "--landmarks", 0, *words)
                whole = top_ten(a.scratch / "whole.npz")
                row(dataset.name, chosen, f"all {cells}", own(said), "", f"{seconds:.1f}")
                for count in (cells // 10, cells // 4, cells // 2):
                    seconds, _, said = match(dataset, a.scratch / "part.npz", "--landmarks", count, *words)
                    common = [len(x & y) / 10 for x, y in zip(whole, top_ten(a.scratch / "part.npz"))]
                    row(dataset.name, chosen, count, own(said), f"{statistics.mean(common):.2f}", f"{seconds:.1f}")

    def large():
        header("cells each way", "seconds", "own memory", "best match of the own branch")
        for n in (10_000, 100_000):
            seconds, peak, said = match(branching(n), a.scratch / "large.npz", "--labels", "branch")
            row(n, f"{seconds:.0f}", f"{peak / 1e9:.2f} GB", own(said))

    for part in a.parts or PARTS:
        dict(solver=solver, landmarks=landmarks, large=large)[part]()
        print()


if __name__ == "__main__":
    main()
