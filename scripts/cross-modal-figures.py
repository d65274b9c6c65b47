#!/usr/bin/env python3
"""The cross-modal autoencoder's figures in the README, measured anew: means and spreads over seeds, as Markdown tables.

    scripts/cross-modal-figures.py DATA SCRATCH [PART ...] [--seeds N] [--epochs N] [--threads N] [--couplet PROGRAM]

DATA holds scicar-a549 and nuclei as they were published (their READMEs say where). SCRATCH takes datasets and runs; a run that is there
already is measured again and not trained again. PARTs: pairs, cca (the same measures of canonical correlation analysis; needs NumPy and SciPy),
widths (the networks' own, an hour and a half), nuclei, simulated; all but cca and widths by default.
"""
import argparse
import csv
import pathlib
import random
import statistics

from figures import header, metrics_of, row, run, spread


# Networks of a size for 93 nuclei of 48 x 48 pixels, an image network that goes on learning, and hardly any adversary: all cells are pairs.
SMALL_NUCLEI = ["class=none", "channels=16,32,64,128", "width=128", "latent=32", "disc_width=64", "train_image=true", "pretrain_epochs=40",
                "pretrain_batch=32", "batch_size=16", "anchor_pairs=32", "epochs=150", "lr=0.001", "w_rec=1", "w_gan=0.01"]


class Lab:
    def __init__(self, o):
        self.o, self.data, self.scratch = o, pathlib.Path(o.data), pathlib.Path(o.scratch)
        self.scratch.mkdir(parents=True, exist_ok=True)

    def dataset(self, name, *words):
        out = self.scratch / name
        if not out.exists():
            run(self.o.couplet, *words, "--out", out)
        return out

    def measured(self, name, dataset, words, labels=None, seeds=None):
        """One dictionary of metrics a seed."""
        all_metrics = []
        for seed in range(1, (seeds or self.o.seeds) + 1):
            out = self.scratch / f"{name}-seed={seed}"
            if not (out / "metrics.json").exists():
                if not (out / "model.safetensors").exists():
                    run(self.o.couplet, "train", "cross-modal", dataset, "--out", out, "--seed", seed, "--device", "cpu",
                        "--threads", self.o.threads, *words)
                run(self.o.couplet, "evaluate", out, "--device", "cpu", *(["--labels", labels] if labels else []))
            all_metrics.append(metrics_of(out))
        return all_metrics

    def scicar(self):
        d = self.data / "scicar-a549"
        return self.dataset("scicar", "import", "--modality", f"atac={d / 'atac'}", "--modality", f"rna={d / 'rna'}",
                            "--labels", d / "labels.csv", "--pairs", "by-name")

    def cca(self):
        import numpy as np
        from scipy.sparse import csr_matrix
        from scipy.spatial.distance import cdist

        dataset, k, pcs = self.scicar(), 10, 50
        table = list(csv.DictReader((dataset / "cells.csv").open()))
        read = lambda name, part: np.load(dataset / name / f"{part}.npy")
        ids = {name: (dataset / name / "cells.txt").read_text().split("\n")[:-1] for name in ("atac", "rna")}
        assert ids["atac"] == ids["rna"], "row i of both is the same cell"
        of = {next(iter(r.values())): r for r in table}
        held = np.array([of[c]["split"] == "test" for c in ids["atac"]])
        labels = np.array([of[c]["treatment_hours"] for c in ids["atac"]])
        scores = {}
        for name in ids:
            x = np.log1p(csr_matrix((read(name, "data"), read(name, "indices"), read(name, "indptr"))).toarray().astype(float))
            deviation = x[~held].std(0)
            x = (x - x[~held].mean(0)) / np.where(deviation > 0, deviation, 1)
            scores[name] = x @ np.linalg.svd(x[~held], full_matrices=False)[2][:pcs].T
        header("CCA", "class accuracy, ATAC / RNA", "knn@50, ATAC to RNA / back", "FOSCTTM (l1)")
        for share in (0.5, 1.0):
            each = []
            for seed in range(1, self.o.seeds + 1):
                known = np.random.default_rng(seed).permutation(np.flatnonzero(~held))[: int(share * (~held).sum())]
                mean = {n: s[known].mean(0) for n, s in scores.items()}
                q, r = {}, {}
                for n, s in scores.items():
                    q[n], r[n] = np.linalg.qr(s[known] - mean[n])
                u, _, vt = np.linalg.svd(q["atac"].T @ q["rna"])
                turn = {"atac": u[:, :k], "rna": vt[:k].T}
                z = {n: (scores[n] - mean[n]) @ np.linalg.solve(r[n], turn[n]) for n in scores}
                m = []
                for a, b in (("atac", "rna"), ("rna", "atac")):
                    d = cdist(z[a][held], z[b], "cityblock")
                    near = np.argsort(d[:, ~held], axis=1, kind="stable")[:, :10]
                    votes = np.array([[(labels[~held][row] == c).sum() for c in np.unique(labels)] for row in near])
                    true = d[np.arange(held.sum()), np.flatnonzero(held)][:, None]
                    m.append([(np.unique(labels)[votes.argmax(1)] == labels[held]).mean(), ((d < true).sum(1) < 50).mean(),
                              (d[:, held] < true).mean()])
                each.append(m)
            each = np.array(each)
            two = lambda what: " / ".join(spread(list(each[:, way, what])) for way in (0, 1))
            row(f"{share:.0%} of the pairs", two(0), two(1), spread(list(each[:, :, 2].mean(1))))

    def widths(self):
        """Half of the pairs, networks of 256 units and of the features' own widths, by number of passes."""
        dataset = self.scicar()
        header("widths, passes", "class accuracy, ATAC / RNA", "knn@50, ATAC to RNA / back", "FOSCTTM (l1)")
        for width, epochs, seeds in [(256, 100, 3), (256, 230, 3), (256, 1000, 1), (0, 100, 1), (0, 230, 1), (0, 941, 1)]:
            words = ["--set", f"width={width}", "--holdout", "split=test", "--epochs", epochs, "--paired", "0.5", "--set", "w_anch=100",
                     "--set", "input_dropout=0.5"]
            m = self.measured(f"scicar-{width}-{epochs}", dataset, words, seeds=seeds)
            two = lambda a, b: f"{cell(m, a)} / {cell(m, b)}"
            row(f"{width or 'own'}, {epochs}", two("class_accuracy.atac", "class_accuracy.rna"),
                two("knn_accuracy@50.atac_to_rna", "knn_accuracy@50.rna_to_atac"), cell(m, "foscttm_l1"))

    def pairs(self):
        dataset = self.scicar()
        common = ["--set", "width=256", "--holdout", "split=test", "--epochs", self.o.epochs]
        ways = {"published": ["--set", "w_anch=0.1"], "input_dropout=0.5": ["--set", "w_anch=100", "--set", "input_dropout=0.5"]}
        for way, words in ways.items():
            print(f"\n{way}\n\n| pairs | class accuracy, ATAC / RNA | head accuracy | knn@50, ATAC to RNA / back | FOSCTTM (l1) | "
                  "the same of training cells: knn@50 | FOSCTTM |\n| --- | --- | --- | --- | --- | --- | --- |")
            for share in ["0", "0.05", "0.25", "0.5", "1"]:
                w = words if share != "0" else [x for x in words if not x.startswith("w_anch")]
                w = [x for i, x in enumerate(w) if not (x == "--set" and (i + 1 == len(w) or w[i + 1] == "--set"))]
                m = self.measured(f"scicar-{way}-{share}", dataset, [*common, *w, "--paired", share])
                two = lambda a, b, end="": f"{cell(m, a + end)} / {cell(m, b + end)}"
                print(f"| {round(100 * float(share))} % | {two('class_accuracy.atac', 'class_accuracy.rna')} | "
                      f"{two('head_accuracy.atac', 'head_accuracy.rna')} | {two('knn_accuracy@50.atac_to_rna', 'knn_accuracy@50.rna_to_atac')} | "
                      f"{cell(m, 'foscttm_l1')} | {two('knn_accuracy@50.atac_to_rna', 'knn_accuracy@50.rna_to_atac', '.train')} | "
                      f"{cell(m, 'foscttm_l1.train')} |", flush=True)

    def simulated(self):
        print("\n| class | AUC of translated images | AUC of translated expression | the same of training cells |\n| --- | --- | --- | --- |")
        for way in ["conditional", "head", "none"]:
            rows = []
            for seed in range(1, self.o.seeds + 1):
                dataset = self.dataset(f"nuclei-{seed}", "simulate", "nuclei", "--seed", seed)
                out = self.scratch / f"simulated-{way}-seed={seed}"
                if not (out / "metrics.json").exists():
                    run(self.o.couplet, "train", "cross-modal", dataset, "--out", out, "--seed", seed, "--device", "cpu", "--threads",
                        self.o.threads, "--holdout", "0.2", "--set", f"class={way}")
                    run(self.o.couplet, "evaluate", out, "--device", "cpu", "--labels", "chromatin")
                rows.append(metrics_of(out))
            keys = ["forest_auc.rna_to_image", "forest_auc.image_to_rna"]
            each = [", ".join(f"{m[k]:.3f}" for m in rows) for k in [*keys, *(k + ".train" for k in keys)]]
            print(f"| `{way}` | {each[0]} | {each[1]} | {each[2]}; {each[3]} |", flush=True)

    def nuclei(self):
        """Real nuclei: a fifth of them held out, three times, none of their turned copies anywhere in training."""
        d = self.data / "nuclei"
        ids = [row[0] for row in csv.reader((d / "features.csv").open())][1:]
        seeds = range(1, self.o.seeds + 1)
        held = {s: set(random.Random(s).sample(range(len(ids)), len(ids) // 5)) for s in seeds}
        table = self.scratch / "holdouts.csv"
        with table.open("w") as file:
            out = csv.writer(file)
            out.writerow(["cell", *(f"holdout{s}" for s in seeds)])
            out.writerows([name, *("held" if i in held[s] else "train" for s in seeds)] for i, name in enumerate(ids))
        words = ["import", "--modality", f"image={d / 'images.npy'}", "--modality", f"features={d / 'features.csv'}", "--labels", table,
                 "--pairs", "by-row"]
        as_they_lie = self.dataset(f"nuclei-real-{self.o.seeds}", *words)
        oriented = self.dataset(f"nuclei-oriented-{self.o.seeds}", *words, "--orient", "image")
        ways = {"w_cross and oriented": ["w_cross=1"], "w_cross and augment": ["w_cross=1", "augment=dihedral"], "w_cross": ["w_cross=1"],
                "w_anch and augment": ["w_anch=10", "augment=dihedral"]}
        by_feature = {}
        for way, options in ways.items():
            dataset = oriented if "oriented" in way else as_they_lie
            metrics, each, near = [], [], []
            for s in seeds:
                out = self.scratch / f"real-{way.replace(' ', '-')}-seed={s}"
                if not (out / "metrics.json").exists():
                    words = [w for o in SMALL_NUCLEI + options for w in ("--set", o)]
                    run(self.o.couplet, "train", "cross-modal", dataset, "--out", out, "--seed", s, "--device", "cpu", "--threads",
                        self.o.threads, "--holdout", f"holdout{s}=held", *words)
                    run(self.o.couplet, "evaluate", out, "--device", "cpu")
                metrics.append(metrics_of(out))
                rows = [r for r in csv.DictReader((out / "metrics_by_feature.csv").open()) if r["cells"] == "held-out"]
                each.append({r["feature"]: float(r["pearson"]) for r in rows})
                near.append({r["feature"]: float(r["pearson_knn"]) for r in rows})
            by_feature[way] = each
            by_feature["neighbours" + " oriented" * (dataset == oriented)] = near
            print(f"{way}: median {cell(metrics, 'pearson.image_to_features.median')}, neighbours "
                  f"{cell(metrics, 'pearson.image_to_features.knn.median')}; error of the features {cell(metrics, 'cross_mse.image_to_features')}, "
                  f"of the images {spread([m['cross_mse.features_to_image'] for m in metrics], 4)}, neighbours "
                  f"{spread([m['cross_mse.features_to_image.knn'] for m in metrics], 4)}", flush=True)
        self.sheet(d, held[1], self.scratch / "real-w_cross-and-oriented-seed=1")
        print()
        header("feature", *by_feature)
        for name in by_feature["neighbours"][0]:
            row(name, *(f"{statistics.mean(m[name] for m in each):.2f}" for each in by_feature.values()))


    def sheet(self, d, held, trained):
        """Nuclei that the run has not seen and what it makes of their features: held-out.png."""
        raw, rows = (d / "images.npy").read_bytes(), (d / "features.csv").read_text().splitlines()
        start, each = 10 + int.from_bytes(raw[8:10], "little"), 48 * 48
        text = raw[10:start].decode().strip().replace(f"({len(rows) - 1},", f"({len(held)},").ljust(117) + "\n"
        images, features = self.scratch / "held.npy", self.scratch / "held.csv"
        pixels = b"".join(raw[start + each * i:][:each] for i in sorted(held))
        images.write_bytes(raw[:8] + len(text).to_bytes(2, "little") + text.encode() + pixels)
        features.write_text("\n".join([rows[0], *(rows[1 + i] for i in sorted(held))]) + "\n")
        out = self.scratch / "held-out.made.npy"
        out.unlink(missing_ok=True)
        run(self.o.couplet, "translate", trained, "--modality", f"image={images}", "--modality", f"features={features}", "--pairs", "by-row",
            "--orient", "image", "--from", "features", "--to", "image", "--out", out, "--sheet", self.scratch / "held-out.png", "--device", "cpu")


def cell(metrics, key):
    return spread([m[key] for m in metrics if key in m])


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("data")
    a.add_argument("scratch")
    a.add_argument("parts", nargs="*", choices=["pairs", "cca", "widths", "nuclei", "simulated", []], default=[])
    a.add_argument("--seeds", type=int, default=3)
    a.add_argument("--epochs", type=int, default=100)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--couplet", default="target/release/couplet")
    o = a.parse_args()
    lab = Lab(o)
    for part in o.parts or ["pairs", "simulated", "nuclei"]:
        getattr(lab, part)()


if __name__ == "__main__":
    main()
