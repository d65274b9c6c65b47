"""Values of the metrics by scikit-learn, SciPy and NumPy, for tests/golden_metrics.rs.

    python make.py > golden.json        (scikit-learn 1.9, SciPy 1.17, NumPy 2; any recent ones should do)

Every number is computed from definitions of those packages, or from full distance matrices, never from couplet.
"""
import json
import sys

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp, multivariate_normal, pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_mutual_info_score, r2_score, roc_auc_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

rng = np.random.default_rng(60)
f32 = lambda x: np.round(np.asarray(x), 3).astype(np.float32)
flat = lambda x: [float(f"{v:.9g}") for v in np.asarray(x, dtype=np.float64).ravel()]
exact = lambda x: [float(v) for v in np.asarray(x, dtype=np.float64).ravel()]
out = {}

# --- two embeddings of the same 90 cells in 3 classes; quarter steps are exact in f32, so ties are ties ----------------------
n, p = 90, 3
y = np.repeat([0, 1, 2], [40, 30, 20])[rng.permutation(n)]
centre = rng.normal(size=(3, p)) * 1.5
A = np.round(4 * (centre[y] + rng.normal(size=(n, p)))) / 4
B = np.round(4 * (A + 0.7 * rng.normal(size=(n, p)))) / 4
train = rng.random(n) < 0.7
tr, te = np.flatnonzero(train), np.flatnonzero(~train)


def foscttm(metric):
    d = cdist(A, B, metric)
    own = np.diag(d)
    return float(((d < own[:, None]).sum() + (d < own[None, :]).sum()) / (2 * n * n))


def knn_accuracy(k):
    order = np.argsort(cdist(A, B, "cityblock"), 1, kind="stable")[:, :k]
    return float((order == np.arange(n)[:, None]).any(1).mean())


def nearest_of_tied(k):
    d = cdist(A[te], B[tr], "cityblock")
    right = 0
    for i, row in enumerate(d):
        near = y[tr][np.argsort(row, kind="stable")[:k]]
        counts = np.bincount(near, minlength=3)
        right += next(c for c in near if counts[c] == counts.max()) == y[te][i]
    return right / len(te)


out["pair"] = dict(
    a=flat(A), b=flat(B), labels=y.tolist(), train=tr.tolist(), test=te.tolist(), latent=p,
    foscttm=foscttm("euclidean"), foscttm_l1=foscttm("cityblock"),
    knn={str(k): knn_accuracy(k) for k in (1, 5, 10, 50)},
    lta=float(KNeighborsClassifier(5, algorithm="brute").fit(B[tr], y[tr]).score(A[te], y[te])),
    class_accuracy=float(nearest_of_tied(10)),
    silhouette_labels=float(silhouette_score(np.r_[A, B], np.r_[y, y])),
    silhouette_modality=float(silhouette_score(np.r_[A, B], np.r_[np.zeros(n), np.ones(n)])),
    singular=exact(np.linalg.svd(A - A.mean(0), compute_uv=False) / np.sqrt(n - 1)),
    rms=float(np.sqrt((A**2).mean())),
)

# --- QDA: log densities of the test cells under Gaussians of the training cells ----------------------------------------------
q = rng.normal(size=(70, 3)) @ rng.normal(size=(3, 3)) + np.repeat(np.eye(3), [40, 20, 10], axis=0) * 2
q = f32(q)
ql = np.repeat([0, 1, 2], [40, 20, 10])
Q = q.astype(float)
log_density, blended = [], []
for c in range(3):
    x = Q[ql == c]
    cov = np.cov(x.T)  # divided by n - 1, as scikit-learn's QDA did when the 2021 code was written (it now divides by n)
    blended.append(multivariate_normal(x.mean(0), 0.99 * cov + 0.01 * np.eye(3)).logpdf(Q))
    if len(x) < 12:
        cov = np.diag(np.diag(cov))
    log_density.append(multivariate_normal(x.mean(0), cov + 1e-4 * np.eye(3)).logpdf(Q))
out["qda"] = dict(codes=flat(q), labels=ql.tolist(), log_density=exact(np.stack(log_density, 1)), blended=exact(np.stack(blended, 1)))

# --- adjusted mutual information ---------------------------------------------------------------------------------------------
u = rng.integers(0, 5, 200)
v = np.where(rng.random(200) < 0.5, u, rng.integers(0, 7, 200))
w = rng.integers(0, 40, 200)
out["ami"] = dict(u=u.tolist(), v=v.tolist(), w=w.tolist(), uv=float(adjusted_mutual_info_score(u, v)), uw=float(adjusted_mutual_info_score(u, w)), vw=float(adjusted_mutual_info_score(v, w)))

# --- a Gaussian mixture: the best log-likelihood of 50 starts ----------------------------------------------------------------
g = np.concatenate([rng.multivariate_normal(m, c, k) for m, c, k in (
    ([0, 0], [[1, 0.8], [0.8, 1]], 80), ([4, 0], [[0.3, 0], [0, 2]], 60), ([0, 6], [[2, -0.5], [-0.5, 0.4]], 40))])
g = f32(g)
mix = GaussianMixture(3, n_init=50, tol=1e-8, max_iter=2000, reg_covar=1e-6 * float(g.astype(float).var(0).mean()), random_state=0).fit(g.astype(float))
out["mixture"] = dict(codes=flat(g), log_likelihood=float(mix.score(g.astype(float))), labels=mix.predict(g.astype(float)).tolist())

# --- principal components and canonical correlations (by QR, Björck and Golub) -----------------------------------------------
z = rng.normal(size=(50, 4))
xa = f32(z @ rng.normal(size=(4, 8)) + 0.5 * rng.normal(size=(50, 8)) + 3)
xb = f32(z @ rng.normal(size=(4, 6)) + 0.5 * rng.normal(size=(50, 6)) - 1)
XA, XB = xa.astype(float), xb.astype(float)
pca = PCA(3, svd_solver="full").fit(XA)
qa, qb = (np.linalg.qr(x - x.mean(0))[0] for x in (XA, XB))
out["linear"] = dict(
    a=flat(xa), b=flat(xb), components=exact(pca.components_), variance=exact(pca.explained_variance_),
    correlations=exact(np.linalg.svd(qa.T @ qb, compute_uv=False)),
    knn=exact(KNeighborsRegressor(5, algorithm="brute").fit(XA[:40], XB[:40]).predict(XA[40:])),
    least_squares=exact(LinearRegression().fit(XA[:40], XB[:40]).predict(XA[40:])),
)

# --- Kolmogorov-Smirnov ------------------------------------------------------------------------------------------------------
cases = []
for m, k, shift in ((7, 12, 0.0), (20, 300, 0.5), (60, 61, 1.2), (150, 400, 0.1)):
    s, t = f32(rng.normal(size=m) + shift), f32(rng.normal(size=k))
    r = ks_2samp(s.astype(float), t.astype(float), method="exact")
    cases.append(dict(x=flat(s), y=flat(t), statistic=float(r.statistic), p=float(r.pvalue)))
out["ks"] = cases

# --- imputation --------------------------------------------------------------------------------------------------------------
measured = f32(rng.normal(size=(40, 5)))
measured[:, 3] = rng.random(40) < 0.8          # two values, mostly the larger
measured[:, 4] = np.where(rng.random(40) < 0.6, 0, measured[:, 4] ** 2)
imputed = f32(0.5 * measured + rng.normal(size=(40, 5)))
imputed[:, 0] = np.round(imputed[:, 0])        # ties
M, I = measured.astype(float), imputed.astype(float)
positive = [M[:, j] > (M[:, j].min() if len(set(M[:, j])) == 2 else np.median(M[:, j])) for j in range(5)]
out["imputation"] = dict(
    imputed=flat(imputed), measured=flat(measured), mse=float(((M - I) ** 2).mean()),
    pearson=[float(pearsonr(I[:, j], M[:, j])[0]) for j in range(5)],
    auroc=[float(roc_auc_score(positive[j], I[:, j])) for j in range(5)],
    r2=[float(r2_score(M[:, j], I[:, j])) for j in range(5)],
)

json.dump(out, sys.stdout, separators=(",", ":"))
print()
