#!/usr/bin/env python3
"""sciCAN's figures on the made-up two-domain set, measured anew: means and spreads over data sets, as Markdown tables.

    scripts/scican-figures.py SCRATCH [--cells N] [--epochs N] [--batch-size N] [--seeds A,B,..] [--scaling own,pooled]
                              [--bn per-modality|joint] [--only LOSSES,..] [--threads N] [--couplet PROGRAM] [--set KEY=VALUE ...]

SCRATCH takes datasets and runs; a run that is there already is measured again and not trained again. Each seed is a data set of its own: they
differ more than runs on one do, so every row is compared within a data set: `over genes` is f1.macro less f1.macro.genes, `over cca` less
f1.macro.cca. One loss after another is added, on modalities standardised each by itself and both together. Seeds 0 to 4 are what is told;
settings are chosen on others (100 to 102), for which --only and --set are there.
"""
import argparse
import pathlib

from figures import header, metrics_of, row, run, spread

OFF = {"w_nce": 0, "w_ict": 0, "w_adv": 0, "w_back": 0, "w_gen": 0, "w_cycle": 0}
STEPS = {  # the preprint's order; what is on at each
    "classes": [],
    "contrast": ["w_nce"],
    "adversary": ["w_nce", "w_adv"],
    "cycle": ["w_nce", "w_adv", "w_back", "w_gen", "w_cycle"],
    "interpolation": list(OFF),
}
COLUMNS = ["f1.macro", "f1.weighted", "head_f1.macro", "silhouette.labels", "silhouette.modality"]
WITHOUT = ["f1.macro.genes", "f1.macro.cca", "f1.macro.within"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("--cells", type=int, default=1000)
    p.add_argument("--epochs", type=int, default=60)
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--seeds", default="0,1,2,3,4", help="of the data sets")
    p.add_argument("--scaling", default="own,pooled")
    p.add_argument("--bn", default="per-modality", choices=["per-modality", "joint"], help="joint: embedded by the running averages")
    p.add_argument("--only", default=",".join(STEPS), help="rows of the table: " + ", ".join(STEPS))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--couplet", default="target/release/couplet")
    p.add_argument("--set", action="append", default=[], help="for every run")
    a = p.parse_args()
    seeds = [int(s) for s in a.seeds.split(",")]
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
        return metrics_of(out)

    embed = {"per-modality": "per-modality", "joint": "running"}[a.bn]
    for scaling in a.scaling.split(","):
        steps = a.epochs * (a.cells // a.batch_size)
        print(f"`scaling={scaling} bn={a.bn} {' '.join(a.set)}`; {a.cells} cells a modality, {steps} steps of minibatches of {a.batch_size}\n")
        header("losses", *COLUMNS, "over genes", "over cca")
        rows = [name for name in STEPS if name in a.only.split(",")]
        for name in rows:
            options = [f"{k}=0" for k in OFF if k not in STEPS[name]] + [f"bn={a.bn}", f"embed_bn={embed}", f"scaling={scaling}", *a.set]
            metrics = [measured(seed, options) for seed in seeds]
            over = [spread([m["f1.macro"] - m[k] for m in metrics]) if k in metrics[0] else "" for k in WITHOUT[:2]]
            row(name, *(spread([m[c] for m in metrics]) for c in COLUMNS), *over)
        without = [f"{k} {spread([m[k] for m in metrics])}" for k in WITHOUT if k in metrics[0]]
        print(f"\nWithout a model: {', '.join(without)}\n", flush=True)


main()
