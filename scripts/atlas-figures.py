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
    limit      the first epoch of coupled on a tenth of the cells, with a quarter of their bytes as heap and without a limit: the same bits?
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import tempfile
import time

PARTS = ["simulate", "import", "jamie", "scican", "load", "limit"]


def measured(words, limit=None):
    """Seconds and peak bytes of the process's own memory."""
    bound = (lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))) if limit else None
    begun = time.time()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([str(w) for w in words], stdout=said, stderr=subprocess.STDOUT, preexec_fn=bound)
        peak = 0
        while process.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            peak = max([peak, *(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))])
            time.sleep(0.05)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(map(str, words))}\n{said.read()}")
    return time.time() - begun, peak


def row(what, seconds, peak, rate):
    print(f"| {what} | {seconds:.0f} s | {rate} | {peak / 1e9:.2f} GB |", flush=True)


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
        seconds, peak = measured([a.couplet, *words])
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
            seconds, peak = measured([a.couplet, *words])
            row(f"`import` of an .h5ad of {genes.stat().st_size / 1e9:.1f} GB, {what}", seconds, peak, f"{genes.stat().st_size / seconds / 1e6:.0f} MB/s")
        fresh(a.scratch / "one")
        words = ["import", "--modality", f"rna={genes}", "--modality", f"activity={genes}", "--pairs", "none", "--labels", f"{atlas / 'cells.csv'}#type"]
        measured([a.couplet, *words, "--out", fresh(two)])

    def trained(model, dataset, options):
        run = fresh(a.scratch / f"run-{model}")
        words = ["train", model, dataset, "--out", run, "--epochs", 1, *train, *[w for o in options for w in ("--set", o)]]
        seconds, peak = measured([a.couplet, *words])
        history = (run / "history.csv").read_text().splitlines()
        epoch = float(dict(zip(history[0].split(","), history[-1].split(",")))["seconds"])
        row(f"`train {model} --epochs 1`", seconds, peak, f"of these {epoch:.0f} s the epoch: {a.cells / epoch:.0f} cells/s")
        words = ["embed", run, "--out", a.scratch / f"{model}.npy", "--device", "cpu", "--threads", a.threads]
        seconds, peak = measured([a.couplet, *words])
        row(f"`embed`, {model}, both modalities", seconds, peak, f"{2 * a.cells / seconds:.0f} cells/s")

    def load():
        words = ["bench", "load", two, "--batch-size", 256, "--preprocess", "none", "--seconds", 20, "--json"]
        figure = json.loads(subprocess.run([str(w) for w in [a.couplet, *words]], capture_output=True, text=True, check=True).stdout)
        # Two matrices a cell here, one there.
        ours, plain, theirs = 2 * figure["cells_per_s"], 2 * figure["plain_cells_per_s"], dataloader(genes, 256)
        print(f"rows a second, minibatches of 256 in random order: couplet {ours:.0f}, a plain copy of the mapped rows {plain:.0f}, "
              f"PyTorch's DataLoader over the backed AnnData {theirs:.0f}")

    def limit():
        part = fresh(a.scratch / "part")
        measured([a.couplet, "simulate", "atlas", "--like", "citeseq", "--cells", a.cells // 10, "--features", f"{a.genes},110", "--out", part])
        bound, bits = size(part) // 4, []
        for limit in (None, bound):
            run = fresh(a.scratch / "run-limit")
            words = ["train", "coupled", part, "--out", run, "--epochs", 1, *train, "--set", "batch_size=500"]
            seconds, peak = measured([a.couplet, *words], limit)
            bits.append((run / "model.safetensors").read_bytes())
            row(f"`train coupled`, {a.cells // 10} cells of {size(part) / 1e6:.0f} MB" + (f", heap of {limit / 1e6:.0f} MB" if limit else ""), seconds, peak, "")
        print("the same weights to the bit" if bits[0] == bits[1] else "THE WEIGHTS DIFFER")

    print("| command | time | throughput | own memory at its peak |\n| --- | --- | --- | --- |", flush=True)
    for part in a.parts or PARTS:
        if part == "jamie":
            trained("jamie", atlas, ["align=0"])
        elif part == "scican":
            trained("scican", two, [])
        else:
            {"simulate": simulate, "import": importing, "load": load, "limit": limit}[part]()


if __name__ == "__main__":
    main()
