#!/usr/bin/env python3
"""JAMIE's figures in the README, measured anew: means and spreads over seeds, as Markdown tables.

    scripts/jamie-figures.py DATA SCRATCH [PART ...] [--seeds N] [--couplet PROGRAM]

DATA holds scgem, unioncom-simu1 to -simu3 and patchseq-motor as they were published (their READMEs say where). SCRATCH takes datasets and runs; a
run that is there already is measured again and not trained again. PARTs: integration, pairs, unpaired, landmarks, imputation, motor,
modalities; all of them by default.
"""
import argparse
import pathlib
import statistics

from figures import header, metrics_of, row, run, spread


class Lab:
    def __init__(self, couplet, data, scratch, seeds):
        self.couplet, self.data, self.scratch, self.seeds = couplet, pathlib.Path(data), pathlib.Path(scratch), seeds
        self.scratch.mkdir(parents=True, exist_ok=True)

    def dataset(self, name):
        out, data = self.scratch / name, self.data
        files = {
            "scgem": ("expr", "scgem/expression.csv", "meth", "scgem/methylation.csv", "scgem"),
            "simu1": ("one", "unioncom-simu1/domain1_rebuilt.npy", "two", "unioncom-simu1/domain2.npy", "unioncom-simu1"),
            "simu1-unpaired": ("one", "unioncom-simu1/domain1_rebuilt.npy", "two", "unioncom-simu1/domain2.npy", "unioncom-simu1"),
            "simu2": ("one", "unioncom-simu2/domain1_rebuilt.npy", "two", "unioncom-simu2/domain2.npy", "unioncom-simu2"),
            "simu3": ("one", "unioncom-simu3/domain1.csv", "two", "unioncom-simu3/domain2.csv", "unioncom-simu3"),
            "motor": ("rna", "patchseq-motor/gene_counts.csv.gz", "ephys", "patchseq-motor/ephys.csv", "patchseq-motor"),
        }[name]
        if not out.exists():
            a, a_file, b, b_file, folder = files
            types = [f"{m}={data / folder / f'types{i}.csv'}" for i, m in ((1, a), (2, b))]
            labels = types if name in ("simu2", "simu3") else [data / folder / "cells.csv"]
            run(self.couplet, "import", "--modality", f"{a}={data / a_file}", "--modality", f"{b}={data / b_file}",
                *(w for table in labels for w in ("--labels", table)), "--pairs", "by-row" if name in ("scgem", "simu1", "motor") else "none",
                "--out", out)
        return out

    def simulated(self, name):
        """600 cells seen in three views: all pairs, two of the views, or pairs of neighbouring views in a third of the cells each."""
        whole, out = self.scratch / "views", self.scratch / name
        if not whole.exists():
            run(self.couplet, "simulate", "branching", "--features", "200,100,50", "--out", whole)
        if not out.exists():
            pairs = "by-row"
            if name == "chain":
                pairs = self.scratch / "chain.csv"
                known = (f"{i},{i},\n" if i < 200 else f",{i},{i}\n" for i in range(400))
                pairs.write_text("view1,view2,view3\n" + "".join(known))
            names = {"chain": ["view1", "view2", "view3"], "views12": ["view1", "view2"], "views13": ["view1", "view3"]}[name]
            run(self.couplet, "import", *(w for n in names for w in ("--modality", f"{n}={whole / n / 'values.npy'}")),
                "--pairs", pairs, "--out", out)
        return out

    def measured(self, name, options, label, truth=None):
        """One dictionary of metrics a seed; `truth` is a dataset of the same cells that says more of them than the run was told."""
        dataset, all_metrics = name if isinstance(name, pathlib.Path) else self.dataset(name), []
        name = dataset.name
        for seed in range(1, self.seeds + 1):
            out = self.scratch / ("-".join([name, *options, f"seed={seed}"]).replace("/", "_").replace("--", ""))
            words = []
            for o in options:
                key, value = o.split("=", 1)
                words += [key, value] if key.startswith("--") else ["--set", o]
            if not (out / "model.safetensors").exists():
                run(self.couplet, "train", "jamie", dataset, "--out", out, "--seed", seed, "--device", "cpu", *words)
            run(self.couplet, "evaluate", out, *([truth] if truth else []), *(["--labels", label] if label else []), "--device", "cpu")
            all_metrics.append(metrics_of(out))
        return all_metrics


def cell(metrics, key):
    return spread([m[key] for m in metrics], 4 if "foscttm" in key else 3)


def table(head, rows):
    header(*head)
    for cells in rows:
        row(*cells)
    print()


def integration(lab):
    rows = []
    for name, label, options in [("scgem", "type", []), ("simu1", "type", ["pca_dim=32", "--epochs=900"])]:
        m = lab.measured(name, options, label)
        rows.append([name, " ".join(options) or "-", cell(m, "foscttm"), cell(m, "lta")])
    table(["all cells, all pairs", "options", "FOSCTTM", "label transfer"], rows)


def pairs(lab):
    rows = []
    for share in ["0.25", "0.5", "0.75", "1"]:
        for align in ["1", "0"]:
            m = lab.measured("scgem", ["--epochs=900", f"--paired={share}", f"align={align}"], "type")
            rows.append([share, align, cell(m, "foscttm"), cell(m, "lta")])
    table(["share of the pairs", "align", "FOSCTTM, all cells", "label transfer"], rows)


def unpaired(lab):
    rows = []
    for name in ["simu1-unpaired", "simu2", "simu3"]:
        told = [name]
        for options in [["align=0"], [], ["solver=gromov"]]:
            m = lab.measured(name, ["pca_dim=32", "--epochs=900", *options], "type")
            told.append(f"{cell(m, 'lta')}, {cell(m, 'silhouette.modality')}")
        rows.append(told)
    table(["no pair known: label transfer, silhouette of the modalities", "align=0", "prime-dual", "gromov"], rows)


def landmarks(lab):
    rows = []
    for name, cells, more in [("scgem", 177, []), ("simu1", 300, ["pca_dim=32"])]:
        told = [name]
        for options in [["align=0"], ["landmarks=0"], [f"landmarks={cells // 2}"], [f"landmarks={cells // 4}"]]:
            m = lab.measured(name, [*more, "--epochs=900", "--paired=0.25", *options], "type")
            told.append(f"{cell(m, 'foscttm')}, {cell(m, 'lta')}")
        rows.append(told)
    table(["a quarter of the pairs: FOSCTTM, label transfer", "align=0", "F of all cells", "F of half", "F of a quarter"], rows)


def imputation(lab):
    for name, label, (a, b), more in [
        ("scgem", "type", ("expr", "meth"), ["--epochs=1000"]),
        ("motor", "rna_family", ("rna", "ephys"), ["--epochs=400", "preprocess.rna=log2p1,standardise"]),
    ]:
        rows = []
        for dropout in ["0", "0.3", "0.6"]:
            m = lab.measured(name, [*more, "--holdout=test=1", "align=0", f"dropout={dropout}"], label)
            told = [dropout]
            for way in [f"{a}_to_{b}", f"{b}_to_{a}"]:
                told.append(f"{cell(m, f'pearson.{way}')} ({statistics.mean(x[f'pearson.{way}.knn'] for x in m):.3f})")
                told.append(" ".join(f"{x[f'binomial_p.pearson.{way}']:.0e}" for x in m))
            rows.append(told + [cell(m, "foscttm"), cell(m, "lta")])
        way = f"{a} to {b}", f"{b} to {a}"
        head = ["dropout", f"{way[0]} (kNN)", "p", f"{way[1]} (kNN)", "p", "held-out FOSCTTM", "held-out label transfer"]
        print(f"{name}: mean Pearson over features, held-out cells")
        table(head, rows)


def motor(lab):
    m = lab.measured("motor", ["--epochs=2000", "preprocess.rna=log2p1,standardise"], "rna_family")
    table(["motor, all cells, all pairs", "FOSCTTM", "label transfer"], [["2,000 epochs", cell(m, "foscttm"), cell(m, "lta")]])


def modalities(lab):
    options, rows = ["--epochs=600", "--holdout=0.2", "dropout=0.05"], []
    for name in ["views", "views12", "views13"]:
        m = lab.measured(lab.simulated(name), options, None)
        told = [name]
        for pair in ["view1_view2", "view1_view3", "view2_view3"]:
            there = f"foscttm.{pair}" in m[0]
            back = "_to_".join(reversed(pair.split("_")))
            told.append(f"{cell(m, f'foscttm.{pair}')}, {cell(m, f'cross_mse.{back}')}" if there else "-")
        rows.append(told)
    table(["held-out FOSCTTM, error from the second to the first", "views 1 and 2", "1 and 3", "2 and 3"], rows)
    rows = []
    for align in ["1", "0"]:
        m = lab.measured(lab.simulated("chain"), ["--epochs=600", f"align={align}"], None, lab.simulated("views"))
        rows.append([align, *(cell(m, f"foscttm.{pair}") for pair in ["view1_view2", "view2_view3", "view1_view3"])])
    for options in [["--epochs=600", "--paired=0"], ["--epochs=600", "--paired=0", "solver=gromov"]]:
        m = lab.measured(lab.simulated("views13"), options, None)
        rows.append(["views 1 and 3 alone, none known " + " ".join(options[2:]), "-", "-", cell(m, "foscttm.view1_view3")])
    table(["pairs of views 1 and 2 or 2 and 3 known: align", "FOSCTTM 1 and 2", "2 and 3", "1 and 3"], rows)


def main():
    parts = {"integration": integration, "pairs": pairs, "unpaired": unpaired, "landmarks": landmarks, "imputation": imputation, "motor": motor,
             "modalities": modalities}
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data")
    p.add_argument("scratch")
    p.add_argument("part", nargs="*", choices=[*parts, []])
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--couplet", default="target/release/couplet")
    args = p.parse_args()
    lab = Lab(args.couplet, args.data, args.scratch, args.seeds)
    for name in args.part or parts:
        parts[name](lab)


if __name__ == "__main__":
    main()
