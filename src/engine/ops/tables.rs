//! Latent tables: a row of parameters a cell, of which a step looks up, differentiates and moves a minibatch's.
//!
//!   look up   z_r = Θ_{order[start + r]} as it stands after the steps that were taken
//!   move      Adam with the gradient of the rows looked up and zero for all others (`Dense`), or of those rows alone (`Lazy`)
//!   shapes    Θ [N cells, d], order [1, ≥ start + B] of u32 row numbers, no row twice in a minibatch, z [B, d]
//!   kernels   table_rows, table_step, table_taken, table_settle                                     (kernels/tables.cu)
//!
//! A row outside the minibatch has no gradient but goes on by its momentum: after k such steps
//!
//!   m ← β₁ᵏ m,  v ← β₂ᵏ v,  θ ← θ - Σ_{j=1..k} η β₁ʲ m / (1-β₁ᵗ⁺ʲ) / (√(β₂ʲ v / (1-β₂ᵗ⁺ʲ)) + ε)
//!
//! which depends on nothing but m, v, the step t that last moved it, and k. It is therefore left until the row is looked up again, and all
//! steps that it missed are then made up for in registers: 12 operations an element and step, and no memory but the minibatch's rows,
//! where Adam over the whole table reads and writes 28·N·d bytes a step. A term shrinks by β₁/√β₂ a step; past the step where that has
//! come to 10⁻⁹ (198 for the usual betas) the rest is left out, and with it any growth with the size of the table. Memory of a table: Θ, m,
//! v, and a word a row.
//!
//! Source: latent optimisation of APOLLO (Zhang 2026), whose program keeps dense moments.

use super::ledger::Ledger;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::optim::AdamSettings;
use crate::engine::params::Group;
use crate::engine::{Step, Var};
use crate::error::Result;
use rayon::prelude::*;

/// A term of the sum over missed steps is left out when it has shrunk to this.
const NEGLIGIBLE: f64 = 1e-9;

/// A table of a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table(usize);

/// What rows outside a minibatch do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// They go on by their momentum, as Adam over the whole table has them.
    Dense,
    /// They stay where they are, and so do their moments.
    Lazy,
}

/// What a [`Step`] knows of its tables.
#[derive(Default)]
pub(in crate::engine) struct Tables(Vec<State>);

struct State {
    name: String,
    group: Group,
    values: Var,
    moves: bool,
    mover: Option<Mover>,
    /// The minibatch's rows, and the order they are in.
    looked_up: Option<[Var; 2]>,
}

/// An optimiser's part of a table.
#[derive(Clone, Copy)]
struct Mover {
    m: Var,
    v: Var,
    /// The step that last moved a row; 0 for none.
    last: Var,
    /// Steps taken.
    taken: Var,
    pace: Pace,
}

/// Adam's numbers as the kernels take them.
#[derive(Clone, Copy)]
struct Pace {
    settings: AdamSettings,
    dense: bool,
    /// As many missed steps are made up for one by one.
    most: u32,
}

impl Tables {
    pub(in crate::engine) fn train_only(&mut self, moves: impl Fn(Group) -> bool) {
        self.0.iter_mut().for_each(|t| t.moves = moves(t.group));
    }

    pub(in crate::engine) fn forget(&mut self) {
        self.0.iter_mut().for_each(|t| t.looked_up = None);
    }
}

impl Step {
    /// A new table with these first values [cells, d]; it is saved as a state of that name.
    pub fn table(&mut self, name: impl Into<String>, group: Group, dims: [usize; 2], values: &[f32]) -> Result<Table> {
        let name = name.into();
        let values = self.state(name.clone(), dims, values)?;
        self.tables.0.push(State { name, group, values, moves: true, mover: None, looked_up: None });
        Ok(Table(self.tables.0.len() - 1))
    }

    /// Its values [cells, d], but for steps that rows have missed; see [`Step::settle_tables`].
    pub fn table_values(&self, table: Table) -> Var {
        self.tables.0[table.0].values
    }

    /// Looks up a minibatch of `rows` rows, in the epoch's order: [rows, d], with a gradient if the table moves. Once a step.
    #[track_caller]
    pub fn table_rows(&mut self, table: Table, order: Var, rows: usize) -> Var {
        let State { values, moves, mover, .. } = self.tables.0[table.0];
        let Some(mover) = mover else { return self.gather(values, order, rows, Var::NONE, Var::NONE) };
        let [cells, d] = self.dims(values);
        assert!(self.start() + rows <= self.size(order), "table_rows: rows {}.. of an order of {}", self.start(), self.size(order));
        let z = self.alloc([rows, d]);
        if self.on_cpu() {
            let start = self.start();
            let [m, v] = [self.alloc([rows, d]), self.alloc([rows, d])];
            let ([z, m, v], [all, all_m, all_v, last, taken, order]) =
                self.views([z, m, v], [values, mover.m, mover.v, mover.last, mover.taken, order]);
            let order: &[u32] = &bytemuck::cast_slice(order)[start..start + rows];
            assert!(order.iter().all(|&row| (row as usize) < cells), "table_rows: a row beyond {cells}");
            let each = z.par_chunks_exact_mut(d).zip(m.par_chunks_exact_mut(d)).zip(v.par_chunks_exact_mut(d)).zip(order);
            each.with_min_len(16).for_each(|(((z, m), v), &row)| {
                let at = row as usize * d..(row as usize + 1) * d;
                z.copy_from_slice(&all[at.clone()]);
                m.copy_from_slice(&all_m[at.clone()]);
                v.copy_from_slice(&all_v[at]);
                mover.pace.make_up(z, m, v, last[row as usize], taken[0]);
            });
        } else {
            let args = [self.ptr(z), self.ptr(values), self.ptr(mover.m), self.ptr(mover.v), self.ptr(mover.last), self.ptr(mover.taken)];
            let more = [self.ptr(order), self.clock_ptr(), d.into()];
            let args: Vec<_> = args.into_iter().chain(more).chain(mover.pace.args()).collect();
            self.launch("table_rows", Grid::blocks(rows, 128), &args);
        }
        if moves && self.recording() {
            self.set_wants(z);
            assert!(self.tables.0[table.0].looked_up.is_none(), "table_rows: once a step");
            self.tables.0[table.0].looked_up = Some([z, order]);
        }
        z
    }

    /// Brings every row to where the steps taken leave it: before a table is read as a whole, and once it moves no more.
    pub fn settle_tables(&mut self) {
        for t in 0..self.tables.0.len() {
            let State { values, mover: Some(Mover { m, v, last, taken, pace }), .. } = self.tables.0[t] else { continue };
            let [cells, d] = self.dims(values);
            if self.on_cpu() {
                let ([z, m, v, last], [taken]) = self.views([values, m, v, last], [taken]);
                let rows = z.par_chunks_exact_mut(d).zip(m.par_chunks_exact_mut(d)).zip(v.par_chunks_exact_mut(d)).zip(last);
                rows.with_min_len(16).for_each(|(((z, m), v), last)| {
                    pace.make_up(z, m, v, *last, taken[0]);
                    *last = if *last > 0.0 && pace.dense { taken[0] } else { *last };
                });
            } else {
                let args = [self.ptr(values), self.ptr(m), self.ptr(v), self.ptr(last), self.ptr(taken), cells.into(), d.into()];
                let args: Vec<_> = args.into_iter().chain(pace.args()).collect();
                self.launch("table_settle", Grid::blocks(cells, 128), &args);
            }
        }
    }
}

/// Adam over the tables of a group.
pub struct TableAdam {
    group: Group,
}

impl TableAdam {
    /// For the group's tables, all of which must have been made; the moments are saved under `adam.` and the table's name.
    pub fn new(s: &mut Step, group: Group, settings: AdamSettings, untouched: Untouched) -> Result<TableAdam> {
        s.end();
        let shrink = settings.beta1 / settings.beta2.sqrt();
        let most = if shrink > 0.0 && shrink < 1.0 { (NEGLIGIBLE.ln() / shrink.ln()).ceil() as u32 } else { 1 };
        let pace = Pace { settings, dense: untouched == Untouched::Dense, most };
        for t in 0..s.tables.0.len() {
            if s.tables.0[t].group == group {
                let (name, dims) = (s.tables.0[t].name.clone(), s.dims(s.tables.0[t].values));
                let mut state = |what: &str, dims: [usize; 2]| s.state(format!("adam.{name}.{what}"), dims, &vec![0.0; dims[0] * dims[1]]);
                let (m, v) = (state("m", dims)?, state("v", dims)?);
                let (last, taken) = (state("last", [dims[0], 1])?, state("taken", [1, 1])?);
                s.tables.0[t].mover = Some(Mover { m, v, last, taken, pace });
            }
        }
        Ok(TableAdam { group })
    }

    /// Moves the rows that this step looked up.
    pub fn step(&self, s: &mut Step, ledger: &Ledger) {
        for t in 0..s.tables.0.len() {
            let State { group, values, mover, looked_up, .. } = s.tables.0[t];
            let (Some(Mover { m, v, last, taken, pace }), Some([z, order])) = (mover, looked_up) else { continue };
            let Some(g) = s.grad(z).filter(|_| group == self.group) else { continue };
            let [rows, d] = s.dims(z);
            if s.on_cpu() {
                if ledger.stopped(s) {
                    return;
                }
                let start = s.start();
                // The minibatch's rows side by side: they are moved at once, and then put back one by one.
                let [m_rows, v_rows] = [s.alloc([rows, d]), s.alloc([rows, d])];
                let ([z, m_rows, v_rows, values, m, v, last, taken], [g, order]) =
                    s.views([z, m_rows, v_rows, values, m, v, last, taken], [g, order]);
                let order: &[u32] = &bytemuck::cast_slice(order)[start..start + rows];
                let (all_m, all_v, lasts, old) = (&*m, &*v, &*last, &*values);
                let parts = z.par_chunks_exact_mut(d).zip(m_rows.par_chunks_exact_mut(d)).zip(v_rows.par_chunks_exact_mut(d));
                parts.zip(g.par_chunks_exact(d)).zip(order).with_min_len(16).for_each(|((((z, m), v), g), &row)| {
                    let at = row as usize * d..(row as usize + 1) * d;
                    z.copy_from_slice(&old[at.clone()]);
                    m.copy_from_slice(&all_m[at.clone()]);
                    v.copy_from_slice(&all_v[at]);
                    pace.make_up(z, m, v, lasts[row as usize], taken[0]);
                    pace.go_on(z, m, v, g, taken[0] + 1.0);
                });
                for (r, &row) in order.iter().enumerate() {
                    let (at, from) = (row as usize * d..(row as usize + 1) * d, r * d..(r + 1) * d);
                    values[at.clone()].copy_from_slice(&z[from.clone()]);
                    m[at.clone()].copy_from_slice(&m_rows[from.clone()]);
                    v[at].copy_from_slice(&v_rows[from]);
                    last[row as usize] = taken[0] + 1.0;
                }
                taken[0] += 1.0;
            } else {
                let args = [s.ptr(values), s.ptr(m), s.ptr(v), s.ptr(last), s.ptr(taken), s.ptr(g), s.ptr(order), s.clock_ptr()];
                let c = pace.settings;
                let own = [(1.0 - c.beta1) as f32, (1.0 - c.beta2) as f32].map(Into::into);
                let args: Vec<_> = args.into_iter().chain([ledger.stop_ptr(s), d.into()]).chain(pace.args()).chain(own).collect();
                s.launch("table_step", Grid::blocks(rows, 128), &args);
                let args = [s.ptr(taken), ledger.stop_ptr(s)];
                s.launch("table_taken", Grid::blocks(1, 1), &args);
            }
        }
    }

    /// The group whose tables it moves.
    pub fn group(&self) -> Group {
        self.group
    }
}

impl Pace {
    /// η, β₁, β₂, their logarithms, ε, how many steps are made up for one by one, and whether any are.
    fn args(&self) -> impl Iterator<Item = crate::device::launch::Arg> {
        let c = self.settings;
        let floats = [c.rate, c.beta1, c.beta2, c.beta1.max(1e-300).ln(), c.beta2.max(1e-300).ln(), c.epsilon];
        floats.map(|f| (f as f32).into()).into_iter().chain([(self.most as usize).into(), self.dense.into()])
    }

    /// The steps that a row missed between the `last` one that moved it and the `taken`-th.
    fn make_up(&self, z: &mut [f32], m: &mut [f32], v: &mut [f32], last: f32, taken: f32) {
        let missed = (taken - last) as u32;
        if last == 0.0 || missed == 0 || !self.dense {
            return;
        }
        let c = &self.settings;
        let (mut power1, mut power2) = (c.beta1.powf(last as f64), c.beta2.powf(last as f64));
        for _ in 0..missed.min(self.most) {
            (power1, power2) = (power1 * c.beta1, power2 * c.beta2);
            let (rate, root) = ((c.rate / (1.0 - power1)) as f32, (1.0 / (1.0 - power2).sqrt()) as f32);
            let [b1, b2, eps] = [c.beta1, c.beta2, c.epsilon].map(|c| c as f32);
            vectorised(
                #[inline(always)]
                || {
                    for ((z, m), v) in z.iter_mut().zip(&mut *m).zip(&mut *v) {
                        *m *= b1;
                        *v *= b2;
                        *z -= rate * *m / (v.sqrt() * root + eps);
                    }
                },
            );
        }
        if missed > self.most {
            let rest = (missed - self.most) as f64;
            let [b1, b2] = [c.beta1, c.beta2].map(|b| b.powf(rest) as f32);
            m.iter_mut().for_each(|m| *m *= b1);
            v.iter_mut().for_each(|v| *v *= b2);
        }
    }

    /// The `t`-th step, with a gradient.
    fn go_on(&self, z: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], t: f32) {
        let c = &self.settings;
        let [b1, b2, c1, c2, eps] = [c.beta1, c.beta2, 1.0 - c.beta1, 1.0 - c.beta2, c.epsilon].map(|c| c as f32);
        let rate = (c.rate / (1.0 - c.beta1.powf(t as f64))) as f32;
        let root = (1.0 / (1.0 - c.beta2.powf(t as f64)).sqrt()) as f32;
        vectorised(
            #[inline(always)]
            || {
                for (((z, m), v), g) in z.iter_mut().zip(m).zip(v).zip(g) {
                    *m = b1 * *m + c1 * g;
                    *v = b2 * *v + c2 * (g * g);
                    *z -= rate * *m / (v.sqrt() * root + eps);
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const CELLS: usize = 11;
    const D: usize = 3;
    /// Ten of eleven cells in minibatches of 5, 3 and 2; the last is never seen.
    const BATCHES: [usize; 3] = [5, 3, 2];

    fn gradient(step: usize, rows: usize) -> Vec<f32> {
        values(rows * D, 100 + step as u32)
    }

    /// A plain loop over the whole table in f64.
    fn reference(order: &[u32], steps: usize, settings: AdamSettings, dense: bool) -> Vec<f64> {
        let mut theta: Vec<f64> = values(CELLS * D, 1).iter().map(|&v| v as f64).collect();
        let (mut m, mut v) = (vec![0.0f64; CELLS * D], vec![0.0f64; CELLS * D]);
        for t in 1..=steps {
            let batch = (t - 1) % BATCHES.len();
            let first: usize = BATCHES[..batch].iter().sum();
            let rows = &order[first..first + BATCHES[batch]];
            let g = gradient(t, rows.len());
            let mut whole = vec![0.0f64; CELLS * D];
            for (r, &row) in rows.iter().enumerate() {
                (0..D).for_each(|c| whole[row as usize * D + c] = g[r * D + c] as f64);
            }
            for i in 0..CELLS * D {
                if !dense && !rows.contains(&((i / D) as u32)) {
                    continue;
                }
                let AdamSettings { rate, beta1, beta2, epsilon, .. } = settings;
                m[i] = beta1 * m[i] + (1.0 - beta1) * whole[i];
                v[i] = beta2 * v[i] + (1.0 - beta2) * whole[i] * whole[i];
                let (m, v) = (m[i] / (1.0 - beta1.powi(t as i32)), v[i] / (1.0 - beta2.powi(t as i32)));
                theta[i] -= rate * m / (v.sqrt() + epsilon);
            }
        }
        theta
    }

    fn run(s: &mut Step, order: &[u32], steps: usize, settings: AdamSettings, untouched: Untouched) -> Vec<f32> {
        let first = values(CELLS * D, 1);
        let table = s.table("t", 0, [CELLS, D], &first).unwrap();
        let adam = TableAdam::new(s, 0, settings, untouched).unwrap();
        let ledger = Ledger::new(s, 0).unwrap();
        let order_var = s.resident([1, order.len()]).unwrap();
        s.upload(order_var, order).unwrap();
        for t in 1..=steps {
            let batch = (t - 1) % BATCHES.len();
            s.begin(true, t as u64, BATCHES[..batch].iter().sum()).unwrap();
            let z = s.table_rows(table, order_var, BATCHES[batch]);
            let g = s.constant([BATCHES[batch], D], &gradient(t, BATCHES[batch]));
            s.backward_from(z, g);
            adam.step(s, &ledger);
        }
        s.begin(false, 1, 0).unwrap();
        let z = s.table_rows(table, order_var, order.len());
        let seen = s.download(z).unwrap();
        s.settle_tables();
        let whole = s.download(s.table_values(table)).unwrap();
        let looked_up = order.iter().flat_map(|&row| whole[row as usize * D..(row as usize + 1) * D].to_vec());
        compare("what is looked up is what it settles to", &seen, &looked_up.map(f64::from).collect::<Vec<_>>(), 1e-6);
        assert!((0..D).all(|c| whole[7 * D + c] == first[7 * D + c]), "a row that no step saw has not moved by a bit");
        whole
    }

    #[test]
    fn rows_that_missed_steps_are_where_adam_over_the_whole_table_has_them() {
        let order = [4, 0, 9, 2, 10, 3, 8, 1, 6, 5];
        for (beta1, steps) in [(0.9, 200), (0.9, 3), (0.5, 200), (0.0, 40)] {
            let settings = AdamSettings { rate: 2e-2, beta1, ..AdamSettings::default() };
            for (untouched, dense) in [(Untouched::Dense, true), (Untouched::Lazy, false)] {
                let want = reference(&order, steps, settings, dense);
                for (device, mut s) in super::super::testing::steps() {
                    let got = run(&mut s, &order, steps, settings, untouched);
                    let worst = got.iter().zip(&want).map(|(g, w)| (*g as f64 - w).abs()).fold(0.0, f64::max);
                    assert!(worst <= 1e-5, "{device}, {untouched:?}, {steps} steps, β₁ {beta1}: {worst}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_out_after_many_missed_steps_is_nothing() {
        let settings = AdamSettings { rate: 1e-2, ..AdamSettings::default() };
        let pace = Pace { settings, dense: true, most: 198 };
        let all = Pace { most: 100_000, ..pace };
        let of = |pace: Pace| {
            let (mut z, mut m, mut v) = ([0.5f32, -1.0], [0.3f32, -1e-3], [0.01f32, 1e-4]);
            pace.make_up(&mut z, &mut m, &mut v, 40.0, 2040.0);
            (z, m, v)
        };
        let ((z, _, v), (z_all, _, v_all)) = (of(pace), of(all));
        assert_eq!(z, z_all, "not a bit");
        assert!(v.iter().zip(v_all).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{v:?} {v_all:?}");
    }
}
