"""Linear support vector machines and F1 by scikit-learn, for tests/golden_svm.rs.

    python make.py > golden.json        (scikit-learn 1.9, NumPy 2; any recent ones should do)

`LinearSVC` as label transfer uses it (C = 1, squared hinge, one against the rest), by its dual to a tolerance that leaves no doubt.
"""
import json
import sys

import numpy as np
from sklearn.metrics import f1_score
from sklearn.svm import LinearSVC

rng = np.random.default_rng(61)
flat = lambda x: [float(f"{v:.9g}") for v in np.asarray(x, dtype=np.float64).ravel()]
cases = []
# cells to learn from, cells to predict, features, classes, how far apart, rows of length 1
for n, m, d, k, apart, unit in [(80, 40, 5, 3, 2.0, False), (120, 60, 20, 6, 0.7, True), (40, 30, 60, 4, 0.5, False), (60, 20, 2, 2, 1.0, True)]:
    centres = apart * rng.normal(size=(k, d))
    y, z = rng.integers(0, k, n), rng.integers(0, k, m)
    x = np.round(centres[y] + rng.normal(size=(n, d)), 3).astype(np.float32)
    t = np.round(centres[z] + rng.normal(size=(m, d)) + 0.5, 3).astype(np.float32)
    if unit:
        x, t = ((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (x, t))
    svm = LinearSVC(C=1.0, dual=True, tol=1e-9, max_iter=1_000_000, random_state=0).fit(x.astype(np.float64), y)
    said, score = svm.predict(t.astype(np.float64)), svm.decision_function(t.astype(np.float64))
    if score.ndim == 1:
        score = np.stack([-score, score], 1)
    cases.append(dict(features=d, x=flat(x), y=y.tolist(), t=flat(t), z=z.tolist(), score=flat(score), said=said.tolist(),
                      f1_macro=f1_score(z, said, average="macro"), f1_weighted=f1_score(z, said, average="weighted")))
json.dump({"cases": cases}, sys.stdout)
print()
