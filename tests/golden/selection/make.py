"""How much scanpy says that genes vary, for src/data/preprocess/selection.rs: python make.py, with scanpy and scikit-misc.

The counts come from a formula, which the test has too, so that they need not be kept.
"""

import json
import pathlib
import warnings

import anndata
import numpy as np
import scanpy as sc

warnings.simplefilter("ignore")
CELLS, GENES = 150, 400


def mix(h):
    h = h.astype(np.uint64)
    for _ in range(2):
        h = (((h ^ (h >> 16)) & 0xFFFFFFFF) * 0x45D9F3B) & 0xFFFFFFFF
    return h ^ (h >> 16)


c, g = np.arange(CELLS)[:, None], np.arange(GENES)[None, :]
u = (mix(c * 1009 + g * 9176 + 1) >> 8) / float(1 << 24)
# Every gene has a mean of its own, but for some that are never there: where means tie, scikit-misc's curve goes by the order in which its
# selection leaves them, and moves by 0.02 when they are set apart by 1e-9.
level = np.where(g % 41 == 0, 0.0, (8.0 + 0.11 * g) * (20.0 + g % 97) * np.where((c + g) % (3 + g % 5) == 0, 1.0 + g % 11, 1.0))
counts = np.floor(-level * np.log(1.0 - u)).astype(np.float64)

seurat = sc.pp.highly_variable_genes(anndata.AnnData(counts), flavor="seurat_v3", n_top_genes=50, inplace=False)
logged = anndata.AnnData(counts.copy())
sc.pp.normalize_total(logged, target_sum=1e4)
sc.pp.log1p(logged)
dispersion = sc.pp.highly_variable_genes(logged, flavor="seurat", n_top_genes=50, inplace=False)
numbers = lambda x: [None if np.isnan(v) else float(f"{v:.10g}") for v in x]
golden = {
    "cells": CELLS,
    "genes": GENES,
    "sum": float(counts.sum()),
    "seurat_v3": numbers(seurat["variances_norm"]),
    "dispersion": numbers(dispersion["dispersions_norm"]),
}
(pathlib.Path(__file__).parent / "golden.json").write_text(json.dumps(golden) + "\n")
there = counts.sum(0) > 0
assert len(np.unique(counts.sum(0)[there])) == there.sum(), "means tie"
print(golden["sum"], sum(v is None for v in golden["dispersion"]))
