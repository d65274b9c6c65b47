"""What POT (Python Optimal Transport, pythonot.github.io) gives for small problems: problems.json, which the tests of
`correspondence::gromov` compare with.

    pip install POT==0.9.7.post1 && python make.py > problems.json
"""

import json

import numpy as np
import ot

rng = np.random.default_rng(20)
M, N = 12, 17


def distances(cells):
    d = np.sqrt(((cells[:, None] - cells[None]) ** 2).sum(-1)).astype(np.float32).astype(float)
    return (d / d.mean()).astype(np.float32).astype(float)


def rounded(x):
    return [float(f"{v:.8g}") for v in np.ravel(x)]


# Sinkhorn on a random cost.
cost = rng.random((M, N)).astype(np.float32).astype(float)
p, q = np.full(M, 1 / M), np.full(N, 1 / N)
epsilon, rho = 0.05, 0.3
balanced = ot.bregman.sinkhorn_log(p, q, cost, epsilon, numItermax=100000, stopThr=1e-13)
unbalanced = ot.unbalanced.sinkhorn_unbalanced(p, q, cost, epsilon, rho, method="sinkhorn", reg_type="kl", numItermax=100000, stopThr=1e-14)

# Gromov-Wasserstein from the uniform plan. A curve with a side branch, seen twice.
t = np.sort(rng.random(N))
curve = np.stack([t, np.sin(2 * t), np.where(t > 0.6, t - 0.6, 0) * (np.arange(N) % 2)], 1)
turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
a, b = distances(curve[:M] @ turn), distances(curve)
gw_epsilon, gw_rho = 0.1, 0.4
gw, log = ot.gromov.entropic_gromov_wasserstein(
    a, b, p, q, "square_loss", epsilon=gw_epsilon, symmetric=True, max_iter=5000, tol=1e-11, solver="PGD", log=True
)
# Its epsilon and rho weigh the quadratic divergence, which counts twice: the halves make them ours.
ugw, _ = ot.gromov.fused_unbalanced_gromov_wasserstein(
    a, b, p, q, reg_marginals=gw_rho / 2, epsilon=gw_epsilon / 2, divergence="kl", unbalanced_solver="sinkhorn", alpha=0,
    M=None, max_iter=2000, tol=1e-10, max_iter_ot=5000, tol_ot=1e-10, log=False,
)[:2]


def objective(T):
    p, q = T.sum(1), T.sum(0)
    return float((a**2 @ p) @ p + (b**2 @ q) @ q - 2 * (T * (a @ T @ b)).sum())


print(json.dumps({
    "m": M, "n": N,
    "cost": rounded(cost), "epsilon": epsilon, "rho": rho, "balanced": rounded(balanced), "unbalanced": rounded(unbalanced),
    "a": rounded(a), "b": rounded(b), "gw_epsilon": gw_epsilon, "gw_rho": gw_rho,
    "gw": rounded(gw), "gw_objective": objective(gw), "gw_pot_objective": float(log["gw_dist"]),
    "ugw": rounded(ugw), "ugw_objective": objective(np.asarray(ugw)), "ugw_mass": float(np.sum(ugw)),
}))
