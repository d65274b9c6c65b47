//! How the modalities' rows reach the device in training: a modality whole, if it fits, else each minibatch's rows as it comes.
//!
//! Either way densely or as non-zeros alone. Whole, there is nothing to do for the host in a step but to say where the minibatch begins;
//! minibatches are read by a thread ahead of the device ([`ahead`](super::ahead)). Whole or not the numbers are the same to the bit; sparse
//! or dense they are the same to rounding.
//!
//! `sparse=auto` takes a modality as non-zeros where at most [`SPARSE`] of its values are any. Measured on one core the first layer's products
//! then take a third of the dense ones' time (a fifth at 10 %), and 8 bytes a non-zero are two fifths of 4 bytes a value. On a GPU, where
//! that is not yet measured and tensor cores are for dense products alone, only where the modality would not fit densely.

use super::ahead::{Ahead, Rows, Source};
use super::input::Input;
use super::sparse::{Csr, SparseInput};
use crate::data::dataset::{Dataset, Modality};
use crate::data::plan::Plan;
use crate::device::Device;
use crate::engine::{SparseRows, Step, Var};
use crate::error::{Error, Result};
use crate::models::options::Value;
use crate::models::settings::Settings;

/// The share of values that are not zero up to which `sparse=auto` is sparse.
pub const SPARSE: f64 = 0.2;
/// As much as the host keeps of data beside the map: an atlas of a million cells then trains in a memory of 2 GB.
const HOST: usize = 1 << 30;
/// Rows that are uploaded at once.
const ROWS: usize = 256;

/// How a modality is fed.
pub struct Way {
    /// Whether the whole modality lies on the device.
    pub resident: bool,
    /// Its rows of non-zeros, if it goes so.
    pub sparse: Option<SparseInput>,
}

/// One modality's way to the device.
struct Feed {
    modality: usize,
    features: usize,
    place: Place,
    /// Its place among what is read ahead; `None`: it lies on the device.
    staged: Option<usize>,
}

/// Where rows lie.
enum Place {
    /// [rows, features]: all cells' with the epoch's order, or a minibatch's.
    Dense { x: Var, order: Var },
    /// Likewise.
    Sparse(SparseRows),
}

/// All modalities' ways to the device.
pub struct Feeds {
    each: Vec<Feed>,
    ahead: Option<Ahead>,
}

impl Feeds {
    /// Puts modalities on the device, or makes room for minibatches of them. `slots` is the longest epoch, `batch` the largest minibatch.
    pub fn new(s: &mut Step, dataset: &Dataset, inputs: &mut [Input], ways: Vec<Way>, slots: usize, batch: usize) -> Result<Feeds> {
        s.end();
        let (mut each, mut sources) = (Vec::new(), Vec::new());
        for ((m, input), way) in inputs.iter_mut().enumerate().zip(ways) {
            let (modality, features) = (dataset.modality(m), input.width());
            let staged = (!way.resident).then_some(sources.len());
            let order = if way.resident { s.resident([1, slots])? } else { Var::NONE };
            let place = match way.sparse {
                None if way.resident => Place::Dense { x: whole(s, modality, input)?, order },
                None => {
                    sources.push(Source::dense(modality, input));
                    Place::Dense { x: s.resident([batch, features])?, order }
                }
                Some(mut sparse) if way.resident => {
                    let base = base(s, &sparse)?;
                    let rows = whole_sparse(s, modality, &mut sparse)?;
                    Place::Sparse(SparseRows { order, base, ..rows })
                }
                Some(sparse) => {
                    let rows = sparse_stage(s, modality, &sparse, batch)?;
                    sources.push(Source::sparse(modality, sparse));
                    Place::Sparse(rows)
                }
            };
            each.push(Feed { modality: m, features, place, staged });
        }
        let ahead = if sources.is_empty() { None } else { Some(Ahead::new(sources)?) };
        Ok(Feeds { each, ahead })
    }

    /// Modalities of these values [cells, features], whole on the device: for measurements and for data that no file holds. Those of a
    /// `true` as non-zeros.
    pub fn of_values(s: &mut Step, modalities: &[(usize, Vec<f32>, bool)], slots: usize) -> Result<Feeds> {
        s.end();
        let mut each = Vec::new();
        for (m, (features, values, sparse)) in modalities.iter().enumerate() {
            let (cells, order) = (values.len() / (*features).max(1), s.resident([1, slots])?);
            let place = if *sparse {
                let mut csr = Csr { starts: vec![0], ..Csr::default() };
                for row in values.chunks_exact(*features) {
                    let entries = (0..).zip(row).filter(|(_, v)| **v != 0.0);
                    entries.for_each(|(c, v)| {
                        csr.columns.push(c);
                        csr.values.push(*v);
                    });
                    csr.starts.push(csr.columns.len() as u32);
                }
                let most = csr.starts.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
                let rows = s.sparse_resident([cells, *features], csr.columns.len(), most)?;
                s.write_sparse(&rows, [0, 0], &csr.starts, &csr.columns, &csr.values)?;
                Place::Sparse(SparseRows { order, ..rows })
            } else {
                let x = s.resident([cells, *features])?;
                s.upload(x, values)?;
                Place::Dense { x, order }
            };
            each.push(Feed { modality: m, features: *features, place, staged: None });
        }
        Ok(Feeds { each, ahead: None })
    }

    /// How many modalities there are.
    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Takes over an epoch's order. `whole`: the epoch will be gone through from its start in the plan's minibatches.
    pub fn set_order(&mut self, s: &mut Step, plan: &Plan, whole: bool) -> Result<()> {
        for feed in self.each.iter().filter(|f| f.staged.is_none()) {
            let (Place::Dense { order, .. } | Place::Sparse(SparseRows { order, .. })) = feed.place;
            s.upload(order, plan.order(feed.modality))?;
        }
        if let Some(ahead) = &mut self.ahead {
            let staged = self.each.iter().filter(|f| f.staged.is_some());
            ahead.begin_epoch(staged.map(|f| plan.order(f.modality).to_vec()).collect(), whole.then(|| plan.batch()));
        }
        Ok(())
    }

    /// What the host has to do before a step on slots `start .. start + rows` of the epoch: nothing where everything lies on the device.
    pub fn stage(&mut self, s: &mut Step, start: usize, rows: usize) -> Result<()> {
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        ahead.take([start, rows], |batch| {
            for feed in &self.each {
                let Some(rows) = feed.staged.map(|at| &batch[at]) else { continue };
                match (&feed.place, rows) {
                    (Place::Dense { x, .. }, Rows::Dense(values)) => s.upload(*x, values)?,
                    (Place::Sparse(to), Rows::Sparse(csr)) => s.write_sparse(to, [0, 0], &csr.starts, &csr.columns, &csr.values)?,
                    _ => return Err(Error::Internal("rows of another kind were read".into())),
                }
            }
            Ok(())
        })
    }

    /// The minibatches [rows, features] of the step under way, into the places of `x`.
    pub fn minibatch(&self, s: &mut Step, rows: usize, x: &mut [Var]) {
        for (x, feed) in x.iter_mut().zip(&self.each) {
            *x = match &feed.place {
                Place::Sparse(of) => s.sparse(of, rows),
                Place::Dense { x, order } if !order.is_none() => s.gather(*x, *order, rows, Var::NONE, Var::NONE),
                Place::Dense { x, .. } if s.dims(*x)[0] == rows => *x,
                Place::Dense { x, .. } => {
                    let part = s.part(*x, 0, rows * feed.features);
                    s.reshaped(part, [rows, feed.features])
                }
            };
        }
    }
}

/// All rows on the device.
fn whole(s: &mut Step, modality: &Modality, input: &mut Input) -> Result<Var> {
    let (cells, features) = (modality.cells(), input.width());
    let x = s.resident([cells, features])?;
    let mut host = vec![0.0f32; ROWS * features];
    for first in (0..cells).step_by(ROWS) {
        let rows: Vec<u32> = (first as u32..cells.min(first + ROWS) as u32).collect();
        let host = &mut host[..rows.len() * features];
        input.rows(modality, &rows, host)?;
        s.upload_at(x, first * features, host)?;
    }
    Ok(x)
}

/// All rows on the device as non-zeros.
fn whole_sparse(s: &mut Step, modality: &Modality, sparse: &mut SparseInput) -> Result<SparseRows> {
    let cells = modality.cells();
    let [all, most] = entries(modality, sparse)?;
    let to = s.sparse_resident([cells, sparse.width()], all, most)?;
    let (mut csr, mut done) = (Csr::default(), 0u32);
    for first in (0..cells).step_by(ROWS) {
        let rows: Vec<u32> = (first as u32..cells.min(first + ROWS) as u32).collect();
        sparse.rows(modality, &rows, &mut csr)?;
        csr.starts.iter_mut().for_each(|start| *start += done);
        s.write_sparse(&to, [first, done as usize], &csr.starts, &csr.columns, &csr.values)?;
        done = csr.starts[rows.len()];
    }
    Ok(to)
}

/// A place for `batch` of a modality's rows of non-zeros, whichever they are.
pub(super) fn sparse_stage(s: &mut Step, modality: &Modality, sparse: &SparseInput, batch: usize) -> Result<SparseRows> {
    let base = base(s, sparse)?;
    let [_, most] = entries(modality, sparse)?;
    Ok(SparseRows { base, ..s.sparse_resident([batch, sparse.width()], batch * most, most)? })
}

fn base(s: &mut Step, sparse: &SparseInput) -> Result<Var> {
    if sparse.base().is_empty() {
        return Ok(Var::NONE);
    }
    let base = s.resident([1, sparse.width()])?;
    s.upload(base, sparse.base())?;
    Ok(base)
}

/// Non-zeros that the model is given of all cells, and of the fullest.
fn entries(modality: &Modality, sparse: &SparseInput) -> Result<[usize; 2]> {
    (0..modality.cells()).try_fold([0, 0], |[all, most], row| {
        let n = sparse.count(modality, row)?;
        Ok([all + n, most.max(n)])
    })
}

/// How many bytes data may take on a device: half of its free memory; of what the process may take, where the map is as near, a quarter and no
/// more than 1 GiB.
pub fn room(device: &Device) -> usize {
    device.free_memory().map_or_else(|| (available_memory() / 4).min(HOST), |free| free / 2)
}

/// How the modalities are fed: each as `sparse.NAME` says, whole while there is room, of which their bytes are taken off. What was `auto` is
/// written into the settings.
pub fn ways(device: &Device, room: &mut usize, dataset: &Dataset, inputs: &[Input], settings: &mut Settings) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (m, input) in dataset.modalities().iter().zip(inputs) {
        let possible = SparseInput::of(input, m);
        let dense = 4 * m.cells() * input.width();
        let chosen = if settings.has("sparse") { settings.of("sparse", m.name())?.word_or("auto")?.to_string() } else { "never".into() };
        let sparse = match (chosen.as_str(), possible) {
            ("auto", Some(possible)) => {
                let pays = is_sparse_enough(m) && (matches!(device, Device::Cpu(_)) || dense > *room);
                pays.then_some(possible)
            }
            ("always", None) => {
                return Err(Error::usage(format!(
                    "sparse.{}=always: its rows are not sparse after \"{}\" (stored densely, values missing, or steps that fill zeros in): leave it auto",
                    m.name(),
                    input.describe()
                )));
            }
            ("always", possible) => possible,
            _ => None,
        };
        if settings.has("sparse") {
            settings.fill("sparse", m.name(), Value::Word(if sparse.is_some() { "always" } else { "never" }.into()));
        }
        let (bytes, countable) = match &sparse {
            None => (dense, true),
            Some(sparse) => {
                let [n, _] = entries(m, sparse)?;
                (8 * n + 4 * m.cells(), n < u32::MAX as usize)
            }
        };
        let resident = bytes <= *room && countable;
        *room -= if resident { bytes } else { 0 };
        ways.push(Way { resident, sparse });
    }
    Ok(ways)
}

/// By modality, whether a run feeds its non-zeros alone, as [`ways`] has written it down.
pub fn chosen<'a>(settings: &Settings, names: impl Iterator<Item = &'a str>) -> Result<Vec<bool>> {
    names.map(|name| Ok(settings.has("sparse") && settings.of("sparse", name)?.word_or("auto")? == "always")).collect()
}

/// Whether its non-zeros alone are less work than all its values.
pub fn is_sparse_enough(m: &Modality) -> bool {
    m.facts().nonzeros as f64 <= SPARSE * (m.cells() * m.features()) as f64
}

/// Bytes that this process may still take: of the machine's memory, of its own limit (`ulimit -d`) and of its control group's; 4 GiB where the
/// system says none of them.
fn available_memory() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |text: &str, key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<usize>().ok());
    let free = number(&read("/proc/meminfo"), "MemAvailable:").map(|kib| kib * 1024);
    let limit = number(&read("/proc/self/limits"), "Max data size");
    let left = limit.map(|limit| limit.saturating_sub(number(&read("/proc/self/status"), "VmData:").unwrap_or(0) * 1024));
    let group = number(&read("/sys/fs/cgroup/memory.max"), "");
    [free, left, group].into_iter().flatten().min().unwrap_or(4 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Hooks;
    use crate::data::preprocess::{Preprocess, Recipe};
    use crate::data::simulate::{SimulateSpec, simulate};
    use crate::engine::Precision;

    fn atlas(dir: &std::path::Path) -> Dataset {
        let spec = SimulateSpec { recipe: "atlas", cells: Some(70), seed: 2, like: Some("multiome"), features: &[60, 50] };
        simulate(&spec, &dir.join("d"), &mut Hooks::default()).unwrap();
        Dataset::open(&dir.join("d")).unwrap()
    }

    /// Two modalities: all features standardised, and some of the other.
    fn inputs(d: &Dataset) -> Vec<Input> {
        let rows: Vec<u32> = (0..d.modality(0).cells() as u32).collect();
        let fit = |m: usize, recipe: &str| Preprocess::fit(d.modality(m), &rows, &Recipe::parse(recipe).unwrap()).unwrap();
        vec![Input::of(fit(0, "counts10k-log1p,standardise,clip10"), None), Input::of(fit(1, "log1p"), Some(vec![3, 40, 7, 9]))]
    }

    /// Every minibatch that is asked for, written out: in order, again from the start, of other sizes, of another epoch.
    fn minibatches(d: &Dataset, resident: bool, sparse: bool) -> Vec<Vec<f32>> {
        let mut s = Step::new(Device::cpu(), 1, Precision::F32).unwrap();
        let mut inputs = inputs(d);
        let of = |(m, input)| Way { resident, sparse: sparse.then(|| SparseInput::of(input, d.modality(m)).unwrap()) };
        let ways = inputs.iter().enumerate().map(of).collect();
        let rows: Vec<u32> = (0..70).collect();
        let mut plan = Plan::new(3, 16, vec![rows.clone(), rows], Vec::new());
        let mut feeds = Feeds::new(&mut s, d, &mut inputs, ways, plan.slots(), 16).unwrap();
        let mut seen = Vec::new();
        for epoch in 1..3 {
            plan.shuffle(epoch);
            feeds.set_order(&mut s, &plan, epoch == 1).unwrap();
            for [start, rows] in [[0, 16], [16, 16], [0, 16], [32, 7], [39, 7], [48, 16]] {
                feeds.stage(&mut s, start, rows).unwrap();
                s.begin(true, 1, start).unwrap();
                let mut x = [Var::NONE; 2];
                feeds.minibatch(&mut s, rows, &mut x);
                for x in x {
                    assert_eq!(s.is_sparse(x), sparse);
                    let x = s.dense(x);
                    seen.push(s.download(x).unwrap());
                }
            }
        }
        seen
    }

    #[test]
    fn a_minibatch_is_the_same_whole_or_read_ahead_and_sparse_or_dense_to_rounding() {
        let dir = tempfile::tempdir().unwrap();
        let d = atlas(dir.path());
        let dense = minibatches(&d, true, false);
        assert!(minibatches(&d, false, false) == dense, "read ahead");
        let sparse = minibatches(&d, true, true);
        assert!(minibatches(&d, false, true) == sparse, "read ahead as non-zeros");
        let near =
            |a: &Vec<f32>, b: &Vec<f32>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
        assert!(sparse.iter().zip(&dense).all(|(a, b)| near(a, b)));
        assert!(dense.iter().any(|x| x.iter().any(|v| *v != 0.0)));
    }

    #[test]
    fn auto_goes_by_zeros_and_device_and_writes_down_what_it_chose() {
        let dir = tempfile::tempdir().unwrap();
        let d = atlas(dir.path());
        let names: Vec<String> = d.modalities().iter().map(|m| m.name().to_string()).collect();
        let spec = &crate::models::coupled::SPEC;
        let chosen = |device: &Device, mut room: usize, flags: &[&str]| {
            let mut settings = Settings::new(spec.name, spec.options, &names).unwrap();
            settings.apply_flags(&flags.iter().map(|f| f.to_string()).collect::<Vec<_>>()).unwrap();
            let ways = ways(device, &mut room, &d, &inputs(&d), &mut settings).unwrap();
            let word = |m: usize| settings.of("sparse", &names[m]).unwrap().word().unwrap().to_string();
            (0..2).map(|m| (ways[m].sparse.is_some(), ways[m].resident, word(m))).collect::<Vec<_>>()
        };
        let always = chosen(&Device::cpu(), 1 << 20, &["sparse=always"]);
        assert_eq!(always, [(true, true, "always".to_string()), (true, true, "always".to_string())]);
        let share = |m: usize| d.modality(m).facts().nonzeros as f64 / (70 * d.modality(m).features()) as f64;
        let auto: Vec<bool> = chosen(&Device::cpu(), 1 << 20, &[]).iter().map(|c| c.0).collect();
        assert_eq!(auto, [share(0) <= SPARSE, share(1) <= SPARSE]);
        #[cfg(feature = "emulated")]
        {
            let on_kernels = |room: usize| chosen(&Device::emulated(1), room, &[]).iter().map(|c| c.0).collect::<Vec<_>>();
            assert_eq!((on_kernels(1 << 20), on_kernels(0)), (vec![false; 2], auto), "where it fits densely it goes so");
        }
        let streamed = chosen(&Device::cpu(), 0, &["sparse=never"]);
        assert_eq!(streamed, [(false, false, "never".to_string()), (false, false, "never".to_string())]);
    }
}
