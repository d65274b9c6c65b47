//! The options of an inferred correspondence: what models that learn from one and `couplet match` share.

use super::options::{Kind, OptionSpec, Per};
use super::settings::Settings;
use crate::correspondence::gromov::{self, Marginals};
use crate::correspondence::landmarks::Solver;
use crate::correspondence::{Inference, Metric, prime_dual};
use crate::error::{Error, Result};

const DISTANCES: &[&str] = &["geodesic", "euclidean", "cosine", "correlation", "pearson", "spearman"];

const fn option(name: &'static str, per: Per, kind: Kind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, per, kind, default, help }
}

/// Distances within a modality.
pub const DISTANCE: OptionSpec =
    option("distance", Per::Modality, Kind::Choice(DISTANCES), "geodesic", "distances that the correspondence is inferred from");
/// Of the geodesic graph.
pub const KMAX: OptionSpec =
    option("kmax", Per::Run, Kind::Int { min: 1, max: 1 << 20 }, "40", "neighbours after which the geodesic graph may stay in parts");
/// T.
pub const STEPS: OptionSpec = option("steps", Per::Run, Kind::Int { min: 1, max: 1 << 30 }, "2000", "steps of the correspondence solver");
/// ε.
pub const EPS: OptionSpec = option("eps", Per::Run, Kind::Float { min: 1e-9, max: 1.0 }, "0.01", "how far a step of the solver goes");
/// ρ.
pub const RHO: OptionSpec =
    option("rho", Per::Run, Kind::Float { min: 0.0, max: f64::MAX }, "10", "how hard the solver enforces the correspondence's sums");
/// Steps with a fixed scale.
pub const DELAY: OptionSpec =
    option("delay", Per::Run, Kind::Int { min: 0, max: 1 << 30 }, "0", "steps before the solver fits the scale between the modalities");
/// Which solver.
pub const SOLVER: OptionSpec = option(
    "solver",
    Per::Run,
    Kind::Choice(&["prime-dual", "gromov"]),
    "prime-dual",
    "how the correspondence is inferred: UnionCom's way, or by optimal transport (entropic Gromov-Wasserstein)",
);
/// ε of the transport.
pub const EPSILON: OptionSpec = option(
    "epsilon",
    Per::Run,
    Kind::Float { min: 1e-6, max: 1e3 },
    "0.005",
    "the transport's entropy, in squared mean distances: what is hardly told apart",
);
/// Rounds of the transport.
pub const ROUNDS: OptionSpec = option("rounds", Per::Run, Kind::Int { min: 1, max: 1 << 30 }, "200", "most rounds of the transport");
/// Sums of the transport.
pub const MARGINALS: OptionSpec = option(
    "marginals",
    Per::Run,
    Kind::Choice(&["at-most", "balanced", "unbalanced"]),
    "at-most",
    "whether every cell of the larger modality must be matched, need not, or all may be left out at a price",
);
/// The price.
pub const RELAX: OptionSpec = option(
    "relax",
    Per::Run,
    Kind::Float { min: 1e-6, max: f64::MAX },
    "1",
    "the price of cells that unbalanced marginals leave out, in squared mean distances",
);
/// L, of models; `match` has a flag.
pub const LANDMARKS: OptionSpec = option(
    "landmarks",
    Per::Run,
    Kind::Int { min: 0, max: 46_340 },
    "auto",
    "infer it between so many cells of each modality and extend it to all; 0: between all; auto: 1000 where one has more than 2000 training cells",
);
/// Before everything.
pub const PREPROCESS: OptionSpec = option(
    "preprocess",
    Per::Modality,
    Kind::Words(crate::data::preprocess::STEPS),
    "auto",
    "steps before the distances, and before principal components where a model takes them",
);

/// Whether the model's first layers are given non-zeros alone: of every model that reads features.
pub const SPARSE: OptionSpec = option(
    "sparse",
    Per::Modality,
    Kind::Choice(&["always", "never"]),
    "auto",
    "feed non-zeros alone; auto: where at most a fifth of the values are not zero and the preprocessing keeps it so",
);

/// All that `couplet match` takes by `--set`.
pub static OPTIONS: &[OptionSpec] = &[PREPROCESS, DISTANCE, KMAX, SOLVER, STEPS, EPS, RHO, DELAY, EPSILON, ROUNDS, MARGINALS, RELAX];

/// What the settings ask for, of two modalities.
pub fn inference(settings: &Settings, modalities: [&str; 2]) -> Result<Inference> {
    let mut how = Inference { kmax: settings.get("kmax")?.count()?, ..Inference::default() };
    if let Ok(landmarks) = settings.get("landmarks") {
        how.landmarks = landmarks.count()?;
    }
    for (metric, name) in how.metrics.iter_mut().zip(modalities) {
        let chosen = settings.of("distance", name)?;
        let word = chosen.word()?;
        *metric = Metric::from_name(word).ok_or_else(|| Error::usage(format!("there is no distance {word:?}")))?;
    }
    let float = |key: &str| settings.get(key).and_then(|v| v.float());
    how.solver = if settings.get("solver")?.word()? == "gromov" {
        let marginals = match settings.get("marginals")?.word()? {
            "balanced" => Marginals::Balanced,
            "unbalanced" => Marginals::Unbalanced(float("relax")? as f32),
            _ => Marginals::AtMost,
        };
        let iterations = settings.get("rounds")?.count()? as u64;
        Solver::Gromov(gromov::Options { epsilon: float("epsilon")? as f32, iterations, marginals, ..gromov::Options::default() })
    } else {
        let mut o = prime_dual::Options::new([1, 1]);
        o.iterations = settings.get("steps")?.count()? as u64;
        o.delay = settings.get("delay")?.count()? as u64;
        (o.step, o.penalty) = (float("eps")? as f32, float("rho")? as f32);
        Solver::PrimeDual(o)
    };
    Ok(how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distance_that_is_offered_is_known_and_the_defaults_are_the_solvers() {
        assert!(DISTANCES.iter().all(|d| Metric::from_name(d).is_some()) && DISTANCES.len() == Metric::NAMES.len());
        let names = ["a", "b"].map(str::to_string);
        let settings = Settings::new("match", OPTIONS, &names).unwrap();
        assert_eq!(inference(&settings, ["a", "b"]).unwrap(), Inference::default());
        let mut settings = settings;
        settings.apply_flags(&["solver=gromov".to_string()]).unwrap();
        assert_eq!(inference(&settings, ["a", "b"]).unwrap().solver, Solver::Gromov(gromov::Options::default()));
    }
}
