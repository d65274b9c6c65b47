//! What decoders and encoders are told of the condition that a cell was seen under: in the paper, which protein its image shows.
//!
//!   t = T_c            T [conditions, 64], a trainable row each, N(0, 1) at the start; zeros for a cell of no known condition
//!
//! The row stands beside the latent vector that is decoded, by every modality's decoders, and beside what an encoder's heads are given. It
//! is found with the latent vectors and at their rate, and stands still while encoders are fitted (the paper; `encoder_ids=own`: each encoder
//! finds rows of its own, the published program). In the ablation of one step, where modalities have optimisers of their own, each modality
//! has a table of its own.

use crate::engine::ops::activation::Activation::Identity;
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var};
use crate::error::{Error, Result};
use crate::models::settings::Settings;

/// Who is told, and by whose rows.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    /// One table for all, moved with this group.
    All(Group),
    /// Every modality's encoder has a table of its own, decoders share one, moved with this group.
    Encoders(Group),
    /// Every modality has its own, moved with its encoder.
    Modalities,
}

/// The conditions of a run.
pub(super) struct Conditions {
    count: usize,
    width: usize,
    /// Of each modality: its decoders' table and its encoder's, transposed [width, conditions].
    tables: Vec<[Var; 2]>,
    /// The conditions' numbers of the cells that are asked about outside training.
    pub(super) given: Var,
}

impl Conditions {
    /// None where the settings name no condition; `encoders` are the groups of the modalities' encoders, and as many cells are asked about
    /// at once.
    pub(super) fn new(
        s: &mut Step,
        settings: &Settings,
        encoders: &[(&str, Group)],
        owner: Owner,
        at_once: usize,
    ) -> Result<Option<Conditions>> {
        if settings.get("condition")?.word()? == "none" {
            return Ok(None);
        }
        let (count, width) = (settings.get("conditions")?.words()?.len(), settings.get("condition_width")?.count()?);
        if count < 2 {
            return Err(Error::usage(format!(
                "condition={}: that column knows {count} of them, and to tell cells apart it takes two",
                settings.get("condition")?.word()?
            )));
        }
        let table = |s: &mut Step, name: String, group: Group| {
            let rows = init::normal(s.seed(), &name, count * width, 1.0);
            s.parameter(name, group, [width, count], rows)
        };
        let shared = match owner {
            Owner::All(group) | Owner::Encoders(group) => table(s, "condition".into(), group),
            Owner::Modalities => Var::NONE,
        };
        let of = |&(name, group): &(&str, Group)| match owner {
            Owner::All(_) => [shared; 2],
            Owner::Encoders(_) => [shared, table(s, format!("enc.{name}.condition"), group)],
            Owner::Modalities => [table(s, format!("condition.{name}"), group); 2],
        };
        let tables = encoders.iter().map(of).collect();
        let given = s.resident([at_once, 1])?;
        Ok(Some(Conditions { count, width, tables, given }))
    }

    /// The dimensions of a condition's vector.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// What a modality's decoders are told of cells of these conditions [B, 1].
    pub(super) fn of_decoders(&self, s: &mut Step, modality: usize, numbers: Var) -> Var {
        self.rows(s, self.tables[modality][0], numbers)
    }

    /// What its encoder is told.
    pub(super) fn of_encoder(&self, s: &mut Step, modality: usize, numbers: Var) -> Var {
        self.rows(s, self.tables[modality][1], numbers)
    }

    /// As a product, so that the gradient of a row is a sum in a fixed order.
    fn rows(&self, s: &mut Step, table: Var, numbers: Var) -> Var {
        let which = s.one_hot(numbers, self.count, 1);
        s.linear(which, table, Var::NONE, Identity)
    }
}
