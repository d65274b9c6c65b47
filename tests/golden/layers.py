"""Layers written out by hand on parameters `w` and states `s`, tensors under the engine's names."""
import torch


def linear(w, name, x):
    """x [n, in] by NAME.weight [out, in] and NAME.bias [1, out]."""
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def batch_norm(w, s, name, u, training, state=None):
    """u [n, F] scaled by NAME.weight and shifted by NAME.bias [1, F] after its own means and variances (biased), which the running
    statistics STATE.mean and STATE.var, of the variance n/(n-1) var, then follow by a tenth; not training, after those. STATE is NAME
    unless it is said."""
    mean, var = f"{state or name}.mean", f"{state or name}.var"
    if training:
        m, v = u.mean(0), u.var(0, correction=0)
        for key, batch in ((mean, m), (var, u.var(0, correction=1))):
            s[key] = 0.9 * s[key] + 0.1 * batch.detach()
    else:
        m, v = s[mean], s[var]
    return w[f"{name}.weight"] * (u - m) / torch.sqrt(v + 1e-5) + w[f"{name}.bias"]
