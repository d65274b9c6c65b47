#!/usr/bin/env python3
"""What an atlas costs: seconds, throughput and memory of each command on a million made-up cells, as a Markdown table.

    python3 -m venv env && env/bin/pip install anndata torch
    env/bin/python scripts/atlas-figures.py SCRATCH [PART ...] [--cells N] [--genes N] [--threads N] [--couplet PROGRAM]

Memory is the process's own at its peak (RssAnon), sampled twenty times a second; mapped files are page cache. SCRATCH
takes some 12 GB. Parts, in order; a later one needs what an earlier one has left:

    simulate   `simulate atlas --like citeseq`: N cells x GENES genes, sparse, and 110 proteins
    import     the same genes out of an .h5ad that anndata's conventions describe (CSR, uncompressed), twice over: RNA and a stand-in for gene activity
    jamie      one epoch on genes and proteins, every cell paired; then `embed`
    scican     one epoch on the two gene matrices; then `embed`
    load       `bench load`, beside PyTorch's DataLoader over the backed AnnData (anndata, torch)
    limit      one epoch of coupled with a quarter of the data's bytes as heap (`ulimit -d`) and without a limit: the same bits?
"""
import argparse
import json
import os
import pathlib
import shutil
import time

import figures
from figures import header, measured, run

PARTS = ["simulate", "import", "jamie", "scican", "load", "limit"]


def row(what, seconds, peak, rate):
    figures.row(what, f"{seconds:.0f} s", rate, f"{peak / 1e9:.2f} GB")


def size(*paths):
    return sum(f.stat().st_size for p in paths for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file())


def write_h5ad(dataset, out):
    """The genes as an .h5ad, by slices: never whole in memory."""
    import h5py
    import numpy as np

    parts = {name: np.load(dataset / "rna" / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices", "data")}
    names = {"obs": (dataset / "rna/cells.txt").read_text().split("\n"), "var": (dataset / "rna/features.txt").read_text().split("\n")}
    names = {k: [n for n in v if n] for k, v in names.items()}
    with h5py.File(out, "w") as f:
        f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = f.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [len(names["obs"]), len(names["var"])]})
        for name, values in parts.items():
            to = x.create_dataset(name, shape=values.shape, dtype=values.dtype, chunks=(1 << 20,) if len(values) > 1 << 20 else None)
            for at in range(0, len(values), 1 << 24):
                to[at : at + (1 << 24)] = values[at : at + (1 << 24)]
        for axis, index in names.items():
            g = f.create_group(axis)
            g.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            g.attrs.create("column-order", [], dtype=h5py.string_dtype())
            d = g.create_dataset("_index", data=np.array(index, dtype=object), dtype=h5py.string_dtype())
            d.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def dataloader(path, batch, seconds=20):
    """Cells a second of PyTorch's DataLoader over the backed AnnData, whole minibatches fetched at once, densely."""
    import anndata
    import numpy as np
    import torch

    data = anndata.read_h5ad(path, backed="r")

    class Cells(torch.utils.data.Dataset):
        def __len__(self):
            return data.n_obs

        def __getitems__(self, rows):
            # Ascending, as HDF5 wants them; the order within a minibatch is nobody's business.
            return torch.from_numpy(np.asarray(data.X[np.sort(rows)].todense(), dtype=np.float32))

        def __getitem__(self, at):
            return self.__getitems__([at])

    loader = torch.utils.data.DataLoader(Cells(), batch_size=batch, shuffle=True, collate_fn=lambda x: x)
    cells, begun = 0, time.time()
    for x in loader:
        cells += len(x)
        if time.time() - begun > seconds:
            break
    return cells / (time.time() - begun)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    p.add_argument("--cells", type=int, default=1_000_000)
    p.add_argument("--genes", type=int, default=2000)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--couplet", default="target/release/couplet")
    a = p.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)
    atlas, genes, two = a.scratch / "atlas", a.scratch / "genes.h5ad", a.scratch / "two"
    train = ["--device", "cpu", "--threads", a.threads]

    def fresh(path):
        shutil.rmtree(path, ignore_errors=True)
        return path

    def simulate():
        words = ["simulate", "atlas", "--like", "citeseq", "--cells", a.cells, "--features", f"{a.genes},110", "--out", fresh(atlas)]
        seconds, peak, _ = measured([a.couplet, *words])
        row("`simulate atlas --like citeseq`", seconds, peak, f"{size(atlas) / seconds / 1e6:.0f} MB/s, {size(atlas) / 1e9:.1f} GB")

    def importing():
        write_h5ad(atlas, genes)
        for what in ("cold", "warm"):
            if what == "cold":
                # Out of the page cache, so that the disk is read.
                fd = os.open(genes, os.O_RDONLY)
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
            words = ["import", "--modality", f"rna={genes}", "--out", fresh(a.scratch / "one")]
            seconds, peak, _ = measured([a.couplet, *words])
            row(f"`import` of an .h5ad of {genes.stat().st_size / 1e9:.1f} GB, {what}", seconds, peak, f"{genes.stat().st_size / seconds / 1e6:.0f} MB/s")
        fresh(a.scratch / "one")
        words = ["import", "--modality", f"rna={genes}", "--modality", f"activity={genes}", "--pairs", "none", "--labels", f"{atlas / 'cells.csv'}#type"]
        measured([a.couplet, *words, "--out", fresh(two)])

    def trained(model, dataset, options):
        run = fresh(a.scratch / f"run-{model}")
        words = ["train", model, dataset, "--out", run, "--epochs", 1, *train, *[w for o in options for w in ("--set", o)]]
        seconds, peak, _ = measured([a.couplet, *words])
        history = (run / "history.csv").read_text().splitlines()
        epoch = float(dict(zip(history[0].split(","), history[-1].split(",")))["seconds"])
        row(f"`train {model} --epochs 1`", seconds, peak, f"of these {epoch:.0f} s the epoch: {a.cells / epoch:.0f} cells/s")
        words = ["embed", run, "--out", a.scratch / f"{model}.npy", "--device", "cpu", "--threads", a.threads]
        seconds, peak, _ = measured([a.couplet, *words])
        row(f"`embed`, {model}, both modalities", seconds, peak, f"{2 * a.cells / seconds:.0f} cells/s")

    def load():
        words = ["bench", "load", two, "--batch-size", 256, "--preprocess", "none", "--seconds", 20, "--json"]
        figure = json.loads(run(a.couplet, *words))
        # Two matrices a cell here, one there.
        ours, plain, theirs = 2 * figure["cells_per_s"], 2 * figure["plain_cells_per_s"], dataloader(genes, 256)
        print(f"rows a second, minibatches of 256 in random order: couplet {ours:.0f}, a plain copy of the mapped rows {plain:.0f}, "
              f"PyTorch's DataLoader over the backed AnnData {theirs:.0f}")

    def limit():
        bound, bits = size(atlas) // 4, []
        for limit in (None, bound):
            run = fresh(a.scratch / "run-limit")
            words = ["train", "coupled", atlas, "--out", run, "--epochs", 1, *train, "--set", "batch_size=500"]
            seconds, peak, _ = measured([a.couplet, *words], limit)
            bits.append((run / "model.safetensors").read_bytes())
            row(f"`train coupled --epochs 1`, {size(atlas) / 1e9:.2f} GB of data" + (f", heap of {limit / 1e6:.0f} MB" if limit else ""), seconds, peak, "")
        print("the same weights to the bit" if bits[0] == bits[1] else "THE WEIGHTS DIFFER")

    header("command", "time", "throughput", "own memory at its peak")
    for part in a.parts or PARTS:
        if part == "jamie":
            trained("jamie", atlas, ["align=0"])
        elif part == "scican":
            trained("scican", two, [])
        else:
            {"simulate": simulate, "import": importing, "load": load, "limit": limit}[part]()


if __name__ == "__main__":
    main()
