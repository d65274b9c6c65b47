#!/usr/bin/env python3
"""APOLLO's figures on the simulations whose answer is known, measured anew: means and spreads over seeds, as Markdown tables.

    scripts/apollo-figures.py SCRATCH [--seeds N] [--threads N] [--couplet PROGRAM] [--set KEY=VALUE ...]

SCRATCH takes datasets and runs; a run that is there already is measured again and not trained again. A seed is a data set and a training.
The first table is of the learned latent vectors, with the recipe's settings; the second of the encoders' codes of cells that the training
never saw; the third of the settings that were tried to keep what is shared out of the modalities' own spaces.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

SIMULATIONS = [1, 2, 3, 4, 5]
SPACES = ["shared", "specific.view1", "specific.view2"]
VARIANTS = [
    ("as published", []),
    ("three times as long, tables at half the rate", ["epochs=800", "lr_tables=0.01"]),
    ("`norm=squared`", ["norm=squared"]),
    ("half the noise", ["noise=0.5"]),
    ("twice the noise", ["noise=2"]),
    ("`redundancy=0.1`", ["redundancy=0.1"]),
    ("`redundancy=1`", ["redundancy=1"]),
    ("`redundancy=10`", ["redundancy=10"]),
]


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")


def told(values):
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--couplet", default="target/release/couplet")
    p.add_argument("--set", action="append", default=[], help="for every run")
    p.add_argument("--variants", type=int, nargs="*", default=[1, 2, 3, 4], help="simulations of the third table")
    a = p.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)

    def measured(simulation, seed, options=(), fresh=False):
        # 2,000 cells train; with `fresh` a thousand more are held out.
        dataset = a.scratch / f"apollo-{simulation}-{seed}{'-fresh' if fresh else ''}"
        if not dataset.exists():
            run(a.couplet, "simulate", f"apollo-{simulation}", "--cells", 3000 if fresh else 2000, "--seed", seed, "--out", dataset)
        out = a.scratch / "-".join([dataset.name, "run", *options, *a.set])
        if not (out / "model.safetensors").exists():
            words = [w for o in [*options, *a.set] for w in ("--set", o)]
            held = ["--holdout", "0.333333"] if fresh else []
            run(a.couplet, "train", "apollo", dataset, "--out", out, "--seed", seed, "--device", "cpu", "--threads", a.threads, *words, *held)
        run(a.couplet, "evaluate", out)
        return json.loads((out / "metrics.json").read_text())

    def of(all_metrics, key, keep=lambda v: v):
        return told([keep(m[key]) for m in all_metrics])

    tables = {s: [measured(s, seed) for seed in range(a.seeds)] for s in SIMULATIONS}
    names = ["shared", "own of view 1", "own of view 2"]
    print(f"\nLatent vectors, {a.seeds} seeds: silhouettes of Z1 (shared) and Z3 (of view 1), R² of Z2 (shared) and Z5 (of view 2)\n")
    heads = [f"{z} {n}" for z in ("Z1", "Z3") for n in names] + ["Z2 shared", "Z5 own of view 2", "Z5 own of view 1", "error view 1", "error view 2"]
    print("| simulation | " + " | ".join(heads) + " |\n|" + " --- |" * (len(heads) + 1))
    for s, m in tables.items():
        cells = [of(m, f"silhouette.{z}.table.{space}") for z in ("Z1", "Z3") for space in SPACES]
        cells += [of(m, "r2.Z2.table.shared"), of(m, "r2.Z5.table.specific.view2"), of(m, "r2.Z5.table.specific.view1")]
        cells += [of(m, f"recon_mse.{v}") for v in ("view1", "view2")]
        print(f"| {s} | " + " | ".join(cells) + " |")

    print("\nEncoders' codes of 1,000 cells that the training never saw: silhouettes\n")
    heads = ["Z1 shared by view 1", "Z1 shared by view 2", "Z1 own of view 1", "Z3 shared by view 1", "Z3 own of view 1", "Z3 own of view 2"]
    keys = ["Z1.shared.view1", "Z1.shared.view2", "Z1.specific.view1", "Z3.shared.view1", "Z3.specific.view1", "Z3.specific.view2"]
    print("| simulation | " + " | ".join(heads) + " |\n|" + " --- |" * (len(heads) + 1))
    for s in SIMULATIONS:
        m = [measured(s, seed, fresh=True) for seed in range(a.seeds)]
        print(f"| {s} | " + " | ".join(of(m, f"silhouette.{key}") for key in keys) + " |")

    print(f"\nWhat keeps Z1 in the shared space: its silhouette there and, as a copy, elsewhere; simulations {a.variants}, means over {a.seeds} seeds\n")
    heads = ["Z1 shared", "Z1 own of view 1", "Z1 own of view 2", "Z3 own of view 1", "R² of Z2 shared", "R² of Z2 own of view 1", "own of view 2", "error view 1"]
    keys = [f"silhouette.Z1.table.{space}" for space in SPACES] + ["silhouette.Z3.table.specific.view1"]
    keys += [f"r2.Z2.table.{space}" for space in SPACES] + ["recon_mse.view1"]
    print("| setting | " + " | ".join(heads) + " |\n|" + " --- |" * (len(heads) + 1))
    for name, options in VARIANTS:
        m = [measured(s, seed, options) for s in a.variants for seed in range(a.seeds)]
        print(f"| {name} | " + " | ".join(of(m, key) for key in keys) + " |", flush=True)


if __name__ == "__main__":
    main()
