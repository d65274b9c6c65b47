//! What a person sees while they wait: a bar with the loss and the time left, or plain lines where stderr is no terminal.

use couplet::correspondence::{Inferring, landmarks};
use couplet::data::{Dataset, Hooks, Progress};
use couplet::train::TrainProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Plain lines come at most this often, except for the last.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The progress of a training, on stderr.
pub struct TrainBar {
    bar: Option<ProgressBar>,
    started: Instant,
    /// Step and time of the first report: what a resumed run did before does not count towards the time left.
    first: Option<(u64, Instant)>,
    plain: Option<Instant>,
}

impl TrainBar {
    /// A bar if stderr is a terminal.
    pub fn new() -> TrainBar {
        let bar = std::io::stderr().is_terminal().then(|| bar("{bar:30} {msg}"));
        TrainBar { bar, started: Instant::now(), first: None, plain: None }
    }

    /// Shows how far the training is.
    pub fn update(&mut self, p: &TrainProgress) {
        let now = Instant::now();
        let (step, since) = *self.first.get_or_insert((p.step, now));
        let done = p.step.saturating_sub(step);
        let left = (done > 0).then(|| (now - since).mul_f64(p.steps.saturating_sub(p.step) as f64 / done as f64));
        let text = line(p, left);
        match &self.bar {
            Some(bar) => {
                bar.set_length(p.steps);
                bar.set_position(p.step);
                bar.set_message(text);
            }
            None if p.step >= p.steps || now - self.plain.unwrap_or(self.started) >= PLAIN_EVERY => {
                self.plain = Some(now);
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(p: &TrainProgress, left: Option<Duration>) -> String {
    let held_out = p.held_out.map(|h| format!(", held out {h:.4}")).unwrap_or_default();
    let left = left.filter(|_| p.step < p.steps).map(|d| format!(", {} left", duration(d))).unwrap_or_default();
    format!("epoch {}/{}: loss {:.4}{held_out}{left}", p.epoch, p.epochs, p.loss)
}

/// The progress of an inferred correspondence, on stderr, and a line when it is there.
pub struct InferBar {
    bar: Option<ProgressBar>,
    started: Instant,
    plain: Instant,
    /// The modalities' names, and which two it is about where there are more.
    names: Vec<String>,
    between: String,
}

impl InferBar {
    /// A bar if stderr is a terminal.
    pub fn new(dataset: &Dataset) -> InferBar {
        let bar = std::io::stderr().is_terminal().then(|| bar("{bar:30} {msg}"));
        let now = Instant::now();
        let names = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
        InferBar { bar, started: now, plain: now, names, between: String::new() }
    }

    /// Shows how far it is.
    pub fn update(&mut self, told: Inferring) {
        let elapsed = self.started.elapsed();
        let left = |done: u64, of: u64| duration(elapsed.mul_f64((of - done.min(of)) as f64 / done.max(1) as f64));
        let (text, done, of) = match told {
            Inferring::Between([a, b]) => {
                self.between = format!("{} and {}: ", self.names[a], self.names[b]);
                self.started = Instant::now();
                // It ended with the pair before.
                self.bar.iter().for_each(ProgressBar::reset);
                return;
            }
            Inferring::Distances { modality, cells } => {
                (format!("correspondence: distances of {cells} cells, modality {} of 2", modality + 1), modality as u64, 2)
            }
            Inferring::PrimeDual { report: r, of } if r.step >= of => {
                let (rows, columns) = (100.0 * r.row_deviation, 100.0 * r.column_excess);
                return self.ended(format!(
                    "correspondence inferred in {of} steps and {}: error {:.4}, rows sum to 1 within {rows:.1} % on average, columns exceed it by {columns:.1} % at most",
                    duration(elapsed),
                    r.error,
                ));
            }
            Inferring::PrimeDual { report: r, of } => {
                (format!("correspondence: step {}/{of}, error {:.4}, {} left", r.step, r.error, left(r.step, of)), r.step, of)
            }
            Inferring::Gromov { report: r, of } => {
                let text =
                    format!("correspondence: round {}/{of} at most, objective {:.5}, change {:.4}", r.iteration, r.objective, r.change);
                (text, r.iteration, of)
            }
            Inferring::Known { pairs, better, left_out } => {
                let verdict = match (left_out, better < 0.5) {
                    (true, _) => ", no better than chance: it is left out",
                    (false, true) => "",
                    (false, false) => ", no better than chance: align=0 goes by the pairs alone",
                };
                return self.ended(format!(
                    "correspondence: {:.1} % of the cells correspond better than the known partner (50 by chance), the mean of {pairs} pairs{verdict}",
                    100.0 * better
                ));
            }
            Inferring::Landmarks(report) => match report {
                landmarks::Report::Neighbours(m, done, of) => {
                    (format!("correspondence: neighbours of {done} of {of} cells, modality {} of 2", m + 1), done as u64, of as u64)
                }
                landmarks::Report::Paths(m, done, of) => {
                    (format!("correspondence: paths from {done} of {of} landmarks, modality {} of 2", m + 1), done as u64, of as u64)
                }
                landmarks::Report::PrimeDual(r) => {
                    (format!("correspondence of landmarks: step {}, error {:.4}", r.step, r.error), r.step, 0)
                }
                landmarks::Report::Gromov(r) => {
                    (format!("correspondence of landmarks: round {}, change {:.4}", r.iteration, r.change), r.iteration, 0)
                }
            },
        };
        self.show(text, done, of);
    }

    fn show(&mut self, text: String, done: u64, of: u64) {
        let text = format!("{}{text}", self.between);
        match &self.bar {
            Some(bar) => {
                bar.set_length(of);
                bar.set_position(done);
                bar.set_message(text);
            }
            None if self.plain.elapsed() >= PLAIN_EVERY => {
                self.plain = Instant::now();
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            None => {}
        }
    }

    fn ended(&self, text: String) {
        self.finish();
        let _ = writeln!(std::io::stderr(), "{}{text}", self.between);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs `work` with hooks that show the rows it has done and stop it on Ctrl-C.
pub fn with_hooks<T>(stop: Option<&AtomicBool>, work: impl FnOnce(&mut Hooks) -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work(&mut Hooks { progress: None, stop });
    }
    let bar = bar("{bar:30} {msg} {human_pos} ({per_sec})");
    let mut show = |p: Progress<'_>| {
        if let Some(total) = p.total {
            if bar.length() != Some(total)
                && let Ok(style) = ProgressStyle::with_template("{bar:30} {msg} {human_pos} of {human_len} ({per_sec}, {eta} left)")
            {
                bar.set_style(style);
            }
            bar.set_length(total);
        }
        bar.set_message(p.stage.to_string());
        bar.set_position(p.done);
    };
    let result = work(&mut Hooks { progress: Some(&mut show), stop });
    bar.finish_and_clear();
    result
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// `1 h 02 min`, `3 min 20 s`, `12 s`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, 0..10) => format!("{:.1} s", d.as_secs_f64()),
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_says_them() {
        let said = [0.25, 12.9, 200.0, 3725.0].map(|s| duration(Duration::from_secs_f64(s)));
        assert_eq!(said, ["0.2 s", "12 s", "3 min 20 s", "1 h 02 min"]);
    }

    #[test]
    fn a_line_names_epoch_loss_and_time_left() {
        let p = TrainProgress { epoch: 3, epochs: 10, step: 30, steps: 100, loss: 0.51239, held_out: Some(0.75) };
        assert_eq!(line(&p, Some(Duration::from_secs(70))), "epoch 3/10: loss 0.5124, held out 0.7500, 1 min 10 s left");
        assert_eq!(line(&TrainProgress { step: 100, held_out: None, ..p }, None), "epoch 3/10: loss 0.5124");
    }
}
