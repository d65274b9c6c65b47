#!/usr/bin/env python3
"""APOLLO's figures on simulations whose answer is known and on sci-CAR, measured anew: means and spreads over seeds, as Markdown tables.

    scripts/apollo-figures.py SCRATCH [PART ...] [--seeds N] [--threads N] [--couplet PROGRAM] [--scicar FOLDER] [--set KEY=VALUE ...]

SCRATCH takes datasets and runs; a run that is there already is measured again and not trained again. A seed is a data set and a training.

    vectors    the learned latent vectors of the five simulations, with the recipe's settings
    codes      the encoders' codes of cells that the training never saw
    variants   the settings that were tried to keep what is shared out of the modalities' own spaces
    stains     paired images of chromatin and of one of three proteins: what lands where, and how well one is predicted from the other
    scicar     who can tell the treatment of sci-CAR's cells from the shared space and from the whole code (--scicar: scicar-a549 as published)

All of them by default, scicar with its folder.
"""
import argparse
import pathlib

from figures import header, metrics_of, row, run, spread

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
STAINS = [
    ("as it is", []),
    ("`condition=none`", ["condition=none"]),
    ("`shared_decoders=false`", ["shared_decoders=false"]),
    ("`specific=false`", ["specific=false"]),
    ("`single_step=true`", ["single_step=true"]),
    ("`single_step=true lr_single=0.0001`", ["single_step=true", "lr_single=0.0001"]),
    ("`single_step=true lr_single=0.001`", ["single_step=true", "lr_single=0.001"]),
]
# Of a size for 1,074 cells.
SCICAR_OPTIONS = ["width=256", "latent=32", "latent_specific=16", "batch_size=128", "epochs=300", "epochs2=150", "lr_tables=0.01", "lr=0.001"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("parts", nargs="*", choices=["vectors", "codes", "variants", "stains", "scicar", []], default=[])
    p.add_argument("--scicar", type=pathlib.Path, help="scicar-a549 as published")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--couplet", default="target/release/couplet")
    p.add_argument("--set", action="append", default=[], help="for every run")
    p.add_argument("--variants", type=int, nargs="*", default=[1, 2, 3, 4], help="simulations of the third table")
    a = p.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)

    def made(name, recipe, *words):
        dataset = a.scratch / name
        if not dataset.exists():
            run(a.couplet, "simulate", recipe, "--out", dataset, *words)
        return dataset

    def trained(dataset, options, words):
        out = a.scratch / "-".join([dataset.name, "run", str(words[1]), *options, *a.set])
        if not (out / "model.safetensors").exists():
            options = [w for o in [*options, *a.set] for w in ("--set", o)]
            run(a.couplet, "train", "apollo", dataset, "--out", out, "--device", "cpu", "--threads", a.threads, *words, *options)
        return out

    def measured(simulation, seed, options=(), fresh=False):
        # 2,000 cells train; with `fresh` a thousand more are held out.
        name = f"apollo-{simulation}-{seed}{'-fresh' if fresh else ''}"
        dataset = made(name, f"apollo-{simulation}", "--cells", 3000 if fresh else 2000, "--seed", seed)
        out = trained(dataset, options, ["--seed", seed, *(["--holdout", "0.333333"] if fresh else [])])
        run(a.couplet, "evaluate", out)
        return metrics_of(out)

    def of(all_metrics, key):
        return spread([m[key] for m in all_metrics], 2)

    def vectors():
        tables = {s: [measured(s, seed) for seed in range(a.seeds)] for s in SIMULATIONS}
        names = ["shared", "own of view 1", "own of view 2"]
        print(f"\nLatent vectors, {a.seeds} seeds: silhouettes of Z1 (shared) and Z3 (of view 1), R² of Z2 (shared) and Z5 (of view 2)\n")
        heads = [f"{z} {n}" for z in ("Z1", "Z3") for n in names]
        header("simulation", *(heads + ["Z2 shared", "Z5 own of view 2", "Z5 own of view 1", "error view 1", "error view 2"]))
        for s, m in tables.items():
            cells = [of(m, f"silhouette.{z}.table.{space}") for z in ("Z1", "Z3") for space in SPACES]
            cells += [of(m, "r2.Z2.table.shared"), of(m, "r2.Z5.table.specific.view2"), of(m, "r2.Z5.table.specific.view1")]
            row(s, *(cells + [of(m, f"recon_mse.{v}") for v in ("view1", "view2")]))

    def codes():
        print("\nEncoders' codes of 1,000 cells that the training never saw: silhouettes\n")
        keys = ["Z1.shared.view1", "Z1.shared.view2", "Z1.specific.view1", "Z3.shared.view1", "Z3.specific.view1", "Z3.specific.view2"]
        header("simulation", "Z1 shared by view 1", "Z1 shared by view 2", "Z1 own of view 1", "Z3 shared by view 1", "Z3 own of view 1", "Z3 own of view 2")
        for s in SIMULATIONS:
            m = [measured(s, seed, fresh=True) for seed in range(a.seeds)]
            row(s, *(of(m, f"silhouette.{key}") for key in keys))

    def variants():
        print(f"\nWhat keeps Z1 in the shared space: its silhouette there and, as a copy, elsewhere; simulations {a.variants}, means over {a.seeds} seeds\n")
        keys = [f"silhouette.Z1.table.{space}" for space in SPACES] + ["silhouette.Z3.table.specific.view1"]
        keys += [f"r2.Z2.table.{space}" for space in SPACES] + ["recon_mse.view1"]
        header("setting", "Z1 shared", "Z1 own of view 1", "Z1 own of view 2", "Z3 own of view 1", "R² of Z2 shared", "R² of Z2 own of view 1", "own of view 2", "error view 1")
        for name, options in VARIANTS:
            m = [measured(s, seed, options) for s in a.variants for seed in range(a.seeds)]
            row(name, *(of(m, key) for key in keys))

    def stains():
        print(f"\nHeld-out cells of `stains`, {a.seeds} seeds: R² of each factor from each space, and squared errors of translation over the variance\n")
        spaces = ["shared.chromatin", "specific.chromatin", "shared.protein", "specific.protein"]
        factors = ["chromatin", "foci", "amount"]
        header("setting", *([f"{factor} from {space}" for factor in factors for space in spaces] + ["protein from chromatin", "chromatin from protein"]))
        for name, options in STAINS:
            m = []
            for seed in range(a.seeds):
                out = trained(made(f"stains-{seed}", "stains", "--seed", seed), options, ["--seed", seed, "--holdout", "0.2"])
                run(a.couplet, "evaluate", out, "--device", "cpu")
                m.append(metrics_of(out))
            keys = [f"r2.{factor}.{space}" for factor in factors for space in spaces]
            keys += ["cross_mse.chromatin_to_protein", "cross_mse.protein_to_chromatin"]
            row(name, *(of(m, key) if key in m[0] else "" for key in keys))

    def scicar():
        dataset = a.scratch / "scicar"
        if not dataset.exists():
            of_modality = [w for m in ("rna", "atac") for w in ("--modality", f"{m}={a.scicar / m}")]
            run(a.couplet, "import", *of_modality, "--pairs", "by-row", "--labels", a.scicar / "labels.csv", "--out", dataset)
        print(f"\nThe treatment of sci-CAR's test cells told by a small network, {a.seeds} seeds\n")
        spaces = ["shared", "full"]
        header("from", *spaces)
        runs = [trained(dataset, SCICAR_OPTIONS, ["--seed", seed, "--holdout", "split=test"]) for seed in range(a.seeds)]
        m = []
        for out in runs:
            run(a.couplet, "evaluate", out, "--labels", "treatment_class", "--classifier", "--device", "cpu")
            m.append(metrics_of(out))
        for modality in ("rna", "atac"):
            row(modality, *(of(m, f"classifier_accuracy.{space}.{modality}") for space in spaces))

    todo = a.parts or ["vectors", "codes", "variants", "stains"] + ["scicar"] * (a.scicar is not None)
    for part in todo:
        dict(vectors=vectors, codes=codes, variants=variants, stains=stains, scicar=scicar)[part]()


if __name__ == "__main__":
    main()
