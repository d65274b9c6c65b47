//! What a finished training leaves: the weights, the codes of all cells and their classes.

use super::{Training, weights};
use crate::error::Result;
use crate::train::session::most_likely;

/// Cells whose codes are written, and their classes, at once.
const CODES_AT_ONCE: usize = 1 << 14;

impl Training<'_> {
    /// The best weights, batch norm's statistics of all training cells, and the embeddings, into the run.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some(best) = &self.best {
            let saved: std::collections::BTreeMap<&str, _> = best.iter().map(|(n, d, v)| (n.as_str(), (*d, v.as_slice()))).collect();
            let current = self.session.step.snapshot()?;
            let find = |name: &str| {
                saved.get(name).copied().or_else(|| current.iter().find(|(n, _, _)| n == name).map(|(_, d, v)| (*d, v.as_slice())))
            };
            self.session.step.restore(find)?;
        }
        let dataset = self.request.dataset;
        self.session.calibrate(dataset, &self.training_rows)?;
        let mut tensors = weights(&mut self.session.step)?;
        for (m, input) in dataset.modalities().iter().zip(&self.session.inputs) {
            tensors.extend(input.tensors(m.name()));
        }
        self.run.save_model(&tensors, &serde_json::json!({ "model": self.request.model.name }))?;
        (0..dataset.modalities().len()).try_for_each(|m| self.write_codes(m))
    }

    /// Writes the embedding of a modality's cells and, where the model has a head, which class that gives each: `predicted.NAME.csv`.
    fn write_codes(&mut self, m: usize) -> Result<()> {
        let dataset = self.request.dataset;
        let (modality, model) = (dataset.modality(m), &self.session.model);
        let mut embedding = self.run.write_embedding(modality.name(), modality.cell_ids(), model.latent(), &model.spaces())?;
        let (mut predicted, mut codes) = (None, Vec::new());
        let all: Vec<u32> = (0..modality.cells() as u32).collect();
        for (first, rows) in (0..).step_by(CODES_AT_ONCE).zip(all.chunks(CODES_AT_ONCE)) {
            codes.clear();
            self.session.embed(dataset, m, rows, &mut |_, z| {
                codes.extend_from_slice(z);
                embedding.row(&[], z)
            })?;
            let Some(classes) = &self.classes else { continue };
            let Some((n, probabilities)) = self.session.class_probabilities(&codes)? else { continue };
            let out = match &mut predicted {
                Some(out) => out,
                None => predicted.insert(self.run.write_predictions(modality.name(), modality.cells(), classes)?),
            };
            for (i, p) in probabilities.chunks_exact(n).enumerate() {
                let best = most_likely(p);
                let values: Vec<f32> = std::iter::once(p[best]).chain(p.iter().copied()).collect();
                let label = classes.get(best).map_or("", String::as_str);
                out.row(&[modality.cell_id(first + i), label], &values)?;
            }
        }
        embedding.commit()?;
        predicted.map_or(Ok(()), |out| out.commit().map(|_| ()))
    }
}
