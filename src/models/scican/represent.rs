//! The first of sciCAN's two steps: what a cell's code should say of its class, of its noisy copies, and of cells between cells.

use super::networks::{Encoder, Statistics, averaged};
use super::*;
use crate::engine::ops::classes::Target;
use crate::engine::rng::Sequence;
use crate::engine::{Knob, Weight};

/// Both parameters of the distribution of λ.
const ALPHA: f64 = 0.2;
/// The base of the effective number of a class's cells.
const EFFECTIVE: f64 = 0.9999;
/// Above this probability a cell is held to be of its class, where centres are learnt.
const SURE: f32 = 0.8;
/// Stream of λ: the bytes of "beta".
const LAMBDAS: u32 = 0x6265_7461;

/// Heads, weights and knobs of the step.
pub struct Represent {
    encoder: Encoder,
    sharing: Sharing,
    classifier: Option<Linear>,
    /// [1, classes], constant.
    class_weights: Var,
    /// What is contrasted is this of the codes, else the codes.
    contrasted: Option<Linear>,
    clusters: Option<Linear>,
    centres: Var,
    /// Of the classes, consistency and centres.
    weights: [f32; 3],
    /// By modality: the contrastive loss of cells, of clusters.
    nce: [[f32; 2]; 2],
    taus: [f32; 2],
    /// [1, features], constant: the noise's deviation.
    noise: Var,
    streams: [[u32; 2]; 2],
    /// The noise on cells whose class is learnt, if there is any; its streams for the first modality's cells and for mixed ones.
    class_noise: Option<Var>,
    class_streams: [u32; 2],
    lambda: Knob,
    half: Knob,
    teacher: Option<Teacher>,
    terms: Vec<String>,
}

/// The averaged network and what its norms keep.
struct Teacher {
    statistics: [Statistics; 2],
    averages: [MovingAverage; 2],
}

impl Represent {
    /// `None` if no weight asks for the step.
    pub fn new(
        s: &mut Step,
        settings: &Settings,
        modalities: &[Modality],
        encoder: Encoder,
        sharing: Sharing,
    ) -> Result<Option<Represent>> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float()).map(|v| v as f32);
        let of = |key: &str, m: usize| settings.of(key, &modalities[m].name).and_then(|v| v.float()).map(|v| v as f32);
        let weights = [float("w_class")?, float("w_ict")?, float("w_center")?];
        let nce = [[of("w_nce", 0)?, of("w_cluster", 0)?], [of("w_nce", 1)?, of("w_cluster", 1)?]];
        if weights.iter().chain(nce.as_flattened()).all(|w| *w == 0.0) {
            return Ok(None);
        }
        let (latent, features) = (count("latent")?, modalities[0].features);
        let counts = settings.get("class_counts")?.counts()?;
        let classes = counts.len();
        let labelled = options::is_labelled(settings)?;
        let linear = |s: &mut Step, name: &str, width: usize| Linear::fan_in(s, name, HEADS, [latent, width], Activation::Identity);
        let classifier = labelled.then(|| linear(s, "class", classes));
        let wide = count("contrast")?;
        let contrasted = (wide > 0 && nce.iter().any(|w| w[0] > 0.0)).then(|| linear(s, "contrast", wide));
        let clustering = nce.iter().any(|w| w[1] > 0.0);
        let clusters = count("clusters")?;
        let clusters = clustering.then(|| linear(s, "cluster", clusters));
        let centres = if weights[2] > 0.0 {
            let start = init::normal(s.seed(), "centres", classes * latent, 1.0);
            s.parameter("centres", HEADS, [classes, latent], start)
        } else {
            Var::NONE
        };
        s.end();
        let class_weights = match classifier {
            Some(_) => constant(s, &effective(&counts))?,
            None => Var::NONE,
        };
        let noise = constant(s, &vec![float("noise")?; features])?;
        let class_noise = match float("noise_class")? {
            0.0 => None,
            deviation => Some(constant(s, &vec![deviation; features])?),
        };
        let stream = |m: usize, copy: usize| init::stream_of(&format!("noise.{}.{copy}", modalities[m].name));
        let mut terms = Vec::new();
        let name = |m: usize| &modalities[m].name;
        if weights[0] > 0.0 {
            terms.push(format!("class.{}", name(0)));
        }
        for (m, nce) in nce.iter().enumerate() {
            let named = ["contrast", "cluster"].iter().zip(nce).filter(|(_, w)| **w > 0.0);
            terms.extend(named.map(|(what, _)| format!("{what}.{}", name(m))));
        }
        terms.extend(["consistency", "centre"].iter().zip(&weights[1..]).filter(|(_, w)| **w > 0.0).map(|(what, _)| what.to_string()));
        Ok(Some(Represent {
            encoder,
            sharing,
            classifier,
            class_weights,
            contrasted,
            clusters,
            centres,
            weights,
            nce,
            taus: [float("tau")?, float("cluster_tau")?],
            noise,
            streams: [0, 1].map(|m| [0, 1].map(|copy| stream(m, copy))),
            class_noise,
            class_streams: ["noise.class", "noise.mixed"].map(init::stream_of),
            lambda: s.knob(0.5),
            half: s.knob(0.5),
            teacher: None,
            terms,
        }))
    }

    /// Begins the averages of encoder and classifier if the consistency asks for them, once all parameters are there.
    pub fn follow(&mut self, s: &mut Step, keep: f64) -> Result<()> {
        if self.weights[1] > 0.0 {
            let averages = [MovingAverage::new(s, "enc", ENCODER, keep)?, MovingAverage::new(s, "heads", HEADS, keep)?];
            self.teacher = Some(Teacher { statistics: self.encoder.statistics(s, "teacher")?, averages });
        }
        Ok(())
    }

    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    pub fn classifier(&self) -> Option<Linear> {
        self.classifier
    }

    /// Draws λ.
    pub fn before_step(&self, s: &mut Step, turn: u64) {
        let lambda = beta(&mut Sequence::new(s.seed(), LAMBDAS, turn as u32), ALPHA);
        s.turn(self.lambda, lambda as f32);
    }

    pub fn after_step(&self, s: &mut Step, ledger: &Ledger) {
        for average in self.teacher.iter().flat_map(|t| &t.averages) {
            average.step(s, ledger);
        }
    }

    /// What the classifier sees of cells, the first modality's (0) or mixed ones (1), in training: the averaged network sees them as they are.
    fn learnt_from(&self, s: &mut Step, x: Var, which: usize) -> Var {
        self.class_noise.map_or(x, |noise| s.corrupt(x, noise, 0.0, self.class_streams[which]))
    }

    pub fn losses(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let [r, t] = [cells.x[0], cells.x[1]];
        let [class, consistency, centre] = self.weights;
        // The second modality's copies are passed in any case where classes are learnt: they are part of what the norms see.
        let copied = [0, 1].map(|m| self.nce[m].iter().any(|w| *w > 0.0) || (m == 1 && self.classifier.is_some()));
        let copies = |s: &mut Step, m: usize| self.streams[m].map(|stream| s.corrupt(cells.x[m], self.noise, 0.0, stream));
        let encode = &self.encoder;
        let learnt = self.learnt_from(s, r, 0);
        let (mut told, mut noisy) = (Var::NONE, [[Var::NONE; 2]; 2]);
        match (self.classifier.is_some(), copied) {
            (true, [false, _]) => {
                let [a, b] = copies(s, 1);
                [told, noisy[1][0], noisy[1][1]] = self.sharing.pass(s, [learnt, a, b], encode);
            }
            (true, [true, _]) => {
                let ([a, b], [c, d]) = (copies(s, 0), copies(s, 1));
                [told, noisy[0][0], noisy[0][1], noisy[1][0], noisy[1][1]] = self.sharing.pass(s, [learnt, a, b, c, d], encode);
            }
            (false, [true, true]) => {
                let ([a, b], [c, d]) = (copies(s, 0), copies(s, 1));
                [noisy[0][0], noisy[0][1], noisy[1][0], noisy[1][1]] = self.sharing.pass(s, [a, b, c, d], encode);
            }
            (false, [one, _]) => {
                let m = usize::from(!one);
                let both = copies(s, m);
                noisy[m] = self.sharing.pass(s, both, encode);
            }
        }
        if let Some(classifier) = self.classifier.filter(|_| class > 0.0) {
            let term = match cells.labels.first() {
                Some(&y) => {
                    let logits = classifier.forward(s, told);
                    s.cross_entropy(logits, Target::Labels(y), self.class_weights)
                }
                None => Var::NONE,
            };
            losses.push((term, Weight::Fixed(class)));
        }
        for (noisy, nce) in noisy.into_iter().zip(self.nce) {
            if nce[0] > 0.0 {
                let [a, b] = noisy.map(|h| self.contrasted.map_or(h, |head| head.forward(s, h)));
                losses.push((s.nt_xent(a, b, self.taus[0]), Weight::Fixed(nce[0])));
            }
            if let Some(head) = self.clusters.filter(|_| nce[1] > 0.0) {
                let [a, b] = noisy.map(|h| {
                    let logits = head.forward(s, h);
                    let shares = s.softmax(logits);
                    s.transposed(shares)
                });
                losses.push((s.nt_xent(a, b, self.taus[1]), Weight::Fixed(nce[1])));
            }
        }
        if let (Some(teacher), Some(classifier)) = (&self.teacher, self.classifier) {
            // Held-out cells are mixed half and half: nothing is drawn for them.
            let lambda = if s.training() { self.lambda } else { self.half };
            let encoder = self.encoder.averaged(s, &teacher.averages[0]).with(teacher.statistics);
            let head = averaged(s, &classifier, &teacher.averages[1]);
            let said = self.sharing.pass(s, [r, t], &encoder).map(|h| head.forward(s, h));
            let mixed = s.mix(r, t, lambda);
            let mixed = self.learnt_from(s, mixed, 1);
            let h = self.encoder.forward(s, mixed);
            let logits = classifier.forward(s, h);
            losses.push((s.consistency(logits, said, lambda), Weight::Fixed(consistency)));
        }
        if let Some(classifier) = self.classifier.filter(|_| centre > 0.0) {
            let h = noisy[1][1];
            let logits = classifier.forward(s, h);
            losses.push((s.centre_distance(h, logits, self.centres, SURE), Weight::Fixed(centre)));
        }
    }
}

/// A constant row.
fn constant(s: &mut Step, values: &[f32]) -> Result<Var> {
    let v = s.resident([1, values.len()])?;
    s.upload(v, values)?;
    Ok(v)
}

/// Classes' weights by their effective number of cells, of mean 1 over all classes; a class without cells weighs nothing.
fn effective(counts: &[usize]) -> Vec<f32> {
    let v = |&n: &usize| if n > 0 { (1.0 - EFFECTIVE) / (1.0 - EFFECTIVE.powf(n as f64)) } else { 0.0 };
    let sum: f64 = counts.iter().map(v).sum();
    counts.iter().map(|n| (counts.len() as f64 * v(n) / sum) as f32).collect()
}

/// A number from Beta(a, a), a ≤ 1 (Jöhnk 1964).
fn beta(draw: &mut Sequence, a: f64) -> f64 {
    loop {
        let [x, y] = [0, 1].map(|_| draw.next_f64().powf(1.0 / a));
        if x + y > 0.0 && x + y <= 1.0 {
            return x / (x + y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_has_the_mean_and_the_variance_of_its_distribution() {
        let n = 20_000;
        let drawn: Vec<f64> = (1..=n).map(|t| beta(&mut Sequence::new(7, LAMBDAS, t), ALPHA)).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(n);
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        // 1/(4 (2a + 1)); five standard errors of numbers between 0 and 1 with that variance.
        let expected = 0.25 / (2.0 * ALPHA + 1.0);
        assert!((mean - 0.5).abs() < 5.0 * (expected / f64::from(n)).sqrt(), "{mean}");
        assert!((variance - expected).abs() < 5.0 * 0.25 / f64::from(n).sqrt(), "{variance}");
    }

    #[test]
    fn rare_classes_weigh_more_and_empty_ones_nothing() {
        let w = effective(&[10, 1000, 0, 100_000]);
        assert!(w[0] > w[1] && w[1] > w[3] && w[2] == 0.0, "{w:?}");
        assert!((w.iter().sum::<f32>() - 4.0).abs() < 1e-5);
        // Two classes by hand: v = 1 of one cell, 1e-4 / (1 - 0.9999²) of two.
        let v = 1e-4 / (1.0 - 0.9999f64.powi(2));
        assert!((f64::from(effective(&[1, 2])[0]) - 2.0 / (1.0 + v)).abs() < 1e-4);
    }
}
