"""How well n_top_genes agrees with scanpy: python scripts/compare-selection.py COUPLET DATASET SCRATCH [MODALITY] [N]

Trains one epoch on DATASET with N (default 1000) features of MODALITY (default: the first), chosen both ways on the training cells, and compares
the features that the run kept with those that scanpy (with scikit-misc) chooses on the same cells.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import time
import warnings

import anndata
import numpy as np
import scanpy as sc
import scipy.sparse as sp

warnings.simplefilter("ignore")


def matrix(folder, shape):
    if (folder / "values.npy").exists():
        return sp.csr_matrix(np.load(folder / "values.npy").astype(np.float32))
    parts = [np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr")]
    return sp.csr_matrix(tuple(parts), shape=shape)


def tensor(path, name):
    """One array of a safetensors file: a length, a JSON header, the bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    start, end = header[name]["data_offsets"]
    return np.frombuffer(data[8 + length + start : 8 + length + end], np.float32)


def main():
    couplet, dataset, scratch = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    told = json.loads((dataset / "dataset.json").read_text())["modalities"]
    modality = next(m for m in told if m["name"] == (sys.argv[4] if len(sys.argv) > 4 else told[0]["name"]))
    name, wanted = modality["name"], int(sys.argv[5]) if len(sys.argv) > 5 else 1000
    counts = matrix(dataset / name, (modality["cells"], modality["features"]))
    for ours, flavor in [("seurat-v3", "seurat_v3"), ("dispersion", "seurat")]:
        run = scratch / f"selection-{ours}"
        shutil.rmtree(run, ignore_errors=True)
        options = [f"n_top_genes.{name}={wanted}", f"top_genes_by.{name}={ours}", "hidden=8", "latent=2"]
        sets = [word for option in options for word in ("--set", option)]
        subprocess.run([couplet, "train", "coupled", dataset, "--out", run, "--epochs", "1", "--device", "cpu", *sets], check=True, capture_output=True)
        mine = set(tensor(run / "model.safetensors", f"preprocess.{name}.columns").astype(int))
        data = anndata.AnnData(counts.astype(np.float64 if ours == "seurat-v3" else np.float32))
        if ours == "dispersion":
            sc.pp.normalize_total(data, target_sum=1e4)
            sc.pp.log1p(data)
        start = time.time()
        table = sc.pp.highly_variable_genes(data, flavor=flavor, n_top_genes=wanted, inplace=False)
        theirs = set(np.flatnonzero(table["highly_variable"].to_numpy()))
        scores = table["variances_norm" if ours == "seurat-v3" else "dispersions_norm"].fillna(-np.inf).to_numpy()
        cut = np.sort(scores)[::-1][wanted - 1]
        ties = sum(abs(scores[g] - cut) <= 1e-6 * abs(cut) for g in mine ^ theirs)
        print(f"{len(mine ^ theirs)} differ, {ties} of them by a tie at the cut; ", end="")
        print(f"{dataset.name} {name} {ours}: {len(mine & theirs)} of {wanted} the same (scanpy took {time.time() - start:.1f} s)", flush=True)
        shutil.rmtree(run)


main()
