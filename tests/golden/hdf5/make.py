"""Makes the files of this folder, which tests/hdf5 reads: python make.py

Written with anndata 0.12.19, mudata 0.3.10, h5py 3.16 and scipy 1.17. Every matrix is the same 7 cells x 5 features,
so that the test knows the numbers; names are cell0.. and gene0.. Files of programs that are not at hand (tables before anndata 0.7,
10x) are written with h5py as those programs lay them out.
"""

import pathlib

import anndata as ad
import h5py
import mudata as md
import numpy as np
import pandas as pd
import scipy.sparse as sp

HERE = pathlib.Path(__file__).parent
CELLS, FEATURES = 7, 5
ad.settings.allow_write_nullable_strings = True


def matrix(dtype="float32"):
    """Cell c, feature f: (3 c + 2 f) mod 7 - 3, negative numbers are 0. Cell 2 has nothing but zeros."""
    c, f = np.mgrid[:CELLS, :FEATURES]
    x = np.maximum((3 * c + 2 * f) % 7 - 3, 0)
    x[2] = 0
    return x.astype(dtype)


def names(n, prefix):
    return [f"{prefix}{i}" for i in range(n)]


def adata(x, **more):
    cells, features = x.shape
    return ad.AnnData(x, obs=pd.DataFrame(index=names(cells, "cell")), var=pd.DataFrame(index=names(features, "gene")), **more)


def write(name, a, **more):
    a.write_h5ad(HERE / name, **more)


FORMS = {"dense": lambda x: x, "csr": sp.csr_matrix, "csc": sp.csc_matrix}
for form, make in FORMS.items():
    for compression in ["none", "gzip", "lzf"]:
        write(f"{form}-{compression}.h5ad", adata(make(matrix())), compression=None if compression == "none" else compression)
    for dtype in ["bool", "uint8", "uint16", "int32", "int64", "float64"]:
        write(f"{form}-{dtype}.h5ad", adata(make(matrix(dtype))), compression="gzip")
write("dense-float16.h5ad", adata(matrix("float16")))

# Forms that SciPy allows and its own functions rarely make.
csr = sp.csr_matrix(matrix())
unsorted = csr.copy()
for row in range(CELLS):
    part = slice(unsorted.indptr[row], unsorted.indptr[row + 1])
    unsorted.indices[part], unsorted.data[part] = unsorted.indices[part][::-1].copy(), unsorted.data[part][::-1].copy()
unsorted.has_sorted_indices = False
write("csr-unsorted.h5ad", adata(unsorted))
doubled = sp.csr_matrix((np.repeat(csr.data / 2, 2), np.repeat(csr.indices, 2), csr.indptr * 2), shape=csr.shape)
write("csr-repeated.h5ad", adata(doubled))
zeros = sp.csr_matrix((matrix().ravel(), np.tile(np.arange(FEATURES), CELLS), np.arange(CELLS + 1) * FEATURES), shape=csr.shape)
write("csr-stored-zeros.h5ad", adata(zeros))
write("csr-int64-indices.h5ad", adata(csr))
with h5py.File(HERE / "csr-int64-indices.h5ad", "r+") as f:
    for part in ["indices", "indptr"]:
        values = f["X"][part][:].astype(">i8" if part == "indices" else "<i8")
        del f["X"][part]
        f["X"].create_dataset(part, data=values, chunks=(3,), shuffle=True, fletcher32=True, compression="gzip")

# Small chunks, split along both axes, big-endian, and the newest layout of HDF5 (other indices of chunks).
for name, libver in [("dense-chunks.h5ad", "earliest"), ("dense-chunks-v114.h5ad", "v114")]:
    with h5py.File(HERE / "dense-none.h5ad") as old, h5py.File(HERE / name, "w", libver=libver) as f:
        for key in old:
            if key != "X":
                old.copy(key, f)
        f.create_dataset("X", data=matrix(">f4"), chunks=(3, 2), compression="gzip", shuffle=True)

# Labels of every kind.
a = adata(csr)
a.obs["type"] = pd.Categorical(["b", "a", None, "b", "a", "c", "b"], categories=["a", "b", "c", "unused"])
a.obs["order"] = pd.Categorical([2, 1, 1, 3, 2, 1, 3], ordered=True)
a.obs["text"] = ["x", "y, z", 'q"q', "ü", "x", "", "x"]
a.obs["whole"] = np.arange(CELLS)
a.obs["real"] = [0.5, np.nan, 1, 2, 3, 4, 5]
a.obs["true"] = [True, False] * 3 + [True]
a.obs["nullable"] = pd.array([1, None, 3, 4, 5, 6, 7], dtype="Int64")
a.obs["nullable_bool"] = pd.array([True, None, False, True, True, True, True], dtype="boolean")
write("labels.h5ad", a)
a = adata(csr)
a.obs["type"] = pd.array(["b", "a", None, "b", "a", "c", "b"], dtype="string")
write("labels-nullable-text.h5ad", a)

# Edges.
write("no-cells.h5ad", adata(np.zeros((0, FEATURES), "f4")))
write("no-features.h5ad", adata(np.zeros((CELLS, 0), "f4")))
write("no-cells-csr.h5ad", adata(sp.csr_matrix((0, FEATURES), dtype="f4")))
write("one-cell.h5ad", adata(matrix()[:1]))
write("one-cell-csr.h5ad", adata(sp.csr_matrix(matrix()[:1])))
write("one-feature-csc.h5ad", adata(sp.csc_matrix(matrix()[:, :1])))
write("all-zero-csr.h5ad", adata(sp.csr_matrix((CELLS, FEATURES), dtype="f4")))
a = adata(csr)
a.obs_names = ["same", "cell1", "cell2", "cell3", "same", "cell5", "cell6"]
write("duplicate-ids.h5ad", a)
a.obs_names = ["cell0", "cell1", "", "cell3", "cell4", "cell5", "cell6"]
write("empty-name.h5ad", a)
with h5py.File(HERE / "csr-none.h5ad") as old, h5py.File(HERE / "latin1-names.h5ad", "w") as f:
    for key in ["X", "obs", "var"]:
        old.copy(key, f)
    del f["obs/_index"]
    f["obs"].create_dataset("_index", data=[b"a", b"b", b"c", b"caf\xe9", b"e", b"f", b"g"], dtype=h5py.special_dtype(vlen=bytes))
for form in ["dense", "csr", "csc"]:
    x = matrix("float64")
    x[4, 1] = np.nan
    write(f"nan-{form}.h5ad", adata(FORMS[form](x)))
    x[4, 1] = 1e300
    write(f"too-large-{form}.h5ad", adata(FORMS[form](x)))
write("layers.h5ad", adata(csr, layers={"counts": matrix("int32"), "half": sp.csc_matrix(matrix() / 2)}))
a = ad.AnnData(obs=pd.DataFrame(index=names(CELLS, "cell")), var=pd.DataFrame(index=names(FEATURES, "gene")))
a.layers["counts"] = csr
write("no-x.h5ad", a)
a = adata(csr)
a.raw = a.copy()
write("raw.h5ad", a[:, :3].copy())

# Compressed as is not read, and values that lie in another file.
with h5py.File(HERE / "dense-none.h5ad") as old, h5py.File(HERE / "zstd.h5ad", "w") as f:
    for key in ["obs", "var"]:
        old.copy(key, f)
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_chunk((CELLS, FEATURES))
    create.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((CELLS, FEATURES))
    h5py.h5d.create(f.id, b"X", h5py.h5t.IEEE_F32LE, space, create)
    f["X"][:] = matrix()
with h5py.File(HERE / "dense-none.h5ad") as old, h5py.File(HERE / "virtual.h5ad", "w") as f:
    for key in ["obs", "var"]:
        old.copy(key, f)
    layout = h5py.VirtualLayout(shape=(CELLS, FEATURES), dtype="f4")
    layout[:] = h5py.VirtualSource("dense-none.h5ad", "X", shape=(CELLS, FEATURES))
    f.create_virtual_dataset("X", layout)

# Before anndata 0.7: tables of records, categories in uns.
text = h5py.special_dtype(vlen=str)
for name, kind in [("table-vlen.h5ad", text), ("table-fixed.h5ad", "S6")]:
    with h5py.File(HERE / name, "w") as f:
        x = f.create_group("X")
        x.attrs["h5sparse_format"] = "csr"
        x.attrs["h5sparse_shape"] = np.array([CELLS, FEATURES])
        for part in ["data", "indices", "indptr"]:
            x.create_dataset(part, data=getattr(csr, part), maxshape=(None,), chunks=(4,))
        obs = np.zeros(CELLS, dtype=[("index", kind), ("type", "i1"), ("real", "f4")])
        obs["index"] = names(CELLS, "cell")
        obs["type"] = [1, 0, -1, 1, 0, 2, 1]
        obs["real"] = np.arange(CELLS) / 2
        f["obs"] = obs
        var = np.zeros(FEATURES, dtype=[("index", kind)])
        var["index"] = names(FEATURES, "gene")
        f["var"] = var
        f["uns/type_categories"] = np.array(["a", "b", "c"], dtype=text)

# MuData: two modalities that share five cells, a layer, columns of both.
rna, atac = adata(csr, layers={"counts": matrix("int32")}), adata(sp.csr_matrix(matrix()[::-1].copy()))
atac.obs_names = names(9, "cell")[2:]
atac.var_names = names(FEATURES, "peak")
rna.obs["type"] = pd.Categorical(["b", "a", "c", "b", "a", "c", "b"])
rna.obs["depth"], atac.obs["depth"] = np.arange(7), np.arange(7) * 10
m = md.MuData({"rna": rna, "atac": atac})
m.obs["donor"] = [f"d{i % 2}" for i in range(m.n_obs)]
m.write(HERE / "pair.h5mu")
md.MuData({"rna": rna}).write(HERE / "single.h5mu")

# 10x: features x cells in columns, which is the CSR of cells x features.
with h5py.File(HERE / "10x-multiome.h5", "w") as f:
    g = f.create_group("matrix")
    for part in ["data", "indices", "indptr"]:
        g.create_dataset(part, data=getattr(csr, part).astype("i4" if part == "data" else "i8"), chunks=(4,), compression="gzip")
    g["shape"] = np.array([FEATURES, CELLS], "i4")
    g["barcodes"] = np.array(names(CELLS, "cell"), "S8")
    g["features/id"] = np.array(names(FEATURES, "id"), "S8")
    g["features/name"] = np.array(names(FEATURES, "gene"), "S8")
    g["features/feature_type"] = np.array(["Gene Expression", "Peaks", "Gene Expression", "Peaks", "Peaks"], "S16")
with h5py.File(HERE / "10x-genomes.h5", "w") as f:
    for genome in ["hg19", "mm10"]:
        g = f.create_group(genome)
        for part in ["data", "indices", "indptr"]:
            g.create_dataset(part, data=getattr(csr, part).astype("i4" if part == "data" else "i8"))
        g["shape"] = np.array([FEATURES, CELLS], "i4")
        g["barcodes"] = np.array(names(CELLS, "cell"), "S8")
        g["genes"] = np.array(names(FEATURES, "id"), "S8")
        g["gene_names"] = np.array(names(FEATURES, "gene"), "S8")
with h5py.File(HERE / "other.h5", "w") as f:
    f["weights"] = np.arange(3)
    f["notes/a"] = np.arange(3)
