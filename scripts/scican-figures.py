#!/usr/bin/env python3
"""sciCAN's figures on the made-up two-domain set, measured anew: means and spreads over data sets, as Markdown tables.

    scripts/scican-figures.py SCRATCH [--cells N] [--epochs N] [--batch-size N] [--seeds N] [--threads N] [--couplet PROGRAM] [--set KEY=VALUE ...]

SCRATCH takes datasets and runs; a run that is there already is measured again and not trained again. Each seed is a data set of its own: they
differ more than runs on one do, so every row is compared within a data set (the column `over genes`). One loss after another is added, on
modalities standardised each by itself and both together.
"""
import argparse
import csv
import json
import pathlib
import statistics
import subprocess

OFF = {"w_nce": 0, "w_ict": 0, "w_adv": 0, "w_back": 0, "w_gen": 0, "w_cycle": 0}
STEPS = [  # the preprint's order; what is on at each
    ("classes", []),
    ("+ contrast", ["w_nce"]),
    ("+ adversary", ["w_nce", "w_adv"]),
    ("+ cycle", ["w_nce", "w_adv", "w_back", "w_gen", "w_cycle"]),
    ("+ interpolation", list(OFF)),
]
COLUMNS = ["f1.macro", "f1.weighted", "head_f1.macro", "silhouette.labels", "silhouette.modality"]


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")


def told(values):
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("--cells", type=int, default=1000)
    p.add_argument("--epochs", type=int, default=60)
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--couplet", default="target/release/couplet")
    p.add_argument("--set", action="append", default=[], help="for every run")
    a = p.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)

    def measured(seed, options):
        dataset = a.scratch / f"two-domain-{a.cells}-{seed}"
        if not dataset.exists():
            run(a.couplet, "simulate", "two-domain", "--cells", a.cells, "--seed", seed, "--out", dataset)
        out = a.scratch / "-".join([f"{a.cells}-{seed}-{a.epochs}-{a.batch_size}", *options])
        if not (out / "model.safetensors").exists():
            words = [w for o in options for w in ("--set", o)]
            length = ["--epochs", a.epochs, "--batch-size", a.batch_size, "--threads", a.threads]
            run(a.couplet, "train", "scican", dataset, "--out", out, "--device", "cpu", *length, *words)
        run(a.couplet, "evaluate", out, "--device", "cpu")
        metrics = json.loads((out / "metrics.json").read_text())
        last = list(csv.DictReader((out / "history.csv").open()))[-1]
        return metrics | {f"loss.{k}": float(v) for k, v in last.items()}

    for bn, embed in [("per-modality", "per-modality"), ("joint", "running")]:
        for scaling in ["own", "pooled"]:
            print(f"`bn={bn}`, `embed_bn={embed}`, `scaling={scaling}`; {a.cells} cells a modality, {a.epochs} epochs of minibatches of {a.batch_size}\n")
            print("| losses | " + " | ".join(COLUMNS) + " | f1.macro over genes | class loss | contrast | cycle |")
            print("| --- |" + " --- |" * (len(COLUMNS) + 4), flush=True)
            for name, on in STEPS:
                options = [f"{k}=0" for k in OFF if k not in on] + [f"bn={bn}", f"embed_bn={embed}", f"scaling={scaling}", *a.set]
                all_metrics = [measured(seed, options) for seed in range(a.seeds)]
                row = [told([m[c] for m in all_metrics]) for c in COLUMNS]
                row.append(told([m["f1.macro"] - m["f1.macro.genes"] for m in all_metrics]))
                for loss in ["loss.class.rna", "loss.contrast.atac", "loss.cycle"]:
                    row.append(told([m[loss] for m in all_metrics]) if loss in all_metrics[0] else "")
                print(f"| {name} | " + " | ".join(row) + " |", flush=True)
            genes = measured(0, options)["f1.macro.genes"] if a.seeds == 1 else told([measured(s, options)["f1.macro.genes"] for s in range(a.seeds)])
            print(f"\nf1.macro.genes, without a model: {genes}\n", flush=True)


main()
