//! The discriminators, one for each two modalities: what they see, and how far what they say is from what it should be.

use super::settings::Class;
use crate::engine::nn::Linear;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::classes::Target;
use crate::engine::params::Group;
use crate::engine::{Step, Var, Weight};
use crate::models::{Minibatch, Modality};

/// How often a class is written beside the code that a discriminator sees.
const REPEAT: usize = 10;

/// One of the modalities `i` and `j`, i < j: codes of i are its side 0.
pub struct Discriminator {
    pub(super) layers: Vec<Linear>,
    /// The first modality.
    pub i: usize,
    /// The second.
    pub j: usize,
}

/// All of them.
pub struct Adversaries {
    /// By pair, (0,1), (0,2), .. (1,2), ..
    pub list: Vec<Discriminator>,
    class: Class,
    classes: usize,
    log: bool,
}

impl Adversaries {
    /// Builds them; `layers` makes the layers of one from its name, the width of what it sees and of what it says.
    pub fn new(
        s: &mut Step,
        modalities: &[Modality],
        (class, classes, log): (Class, usize, bool),
        latent: usize,
        layers: impl Fn(&mut Step, &str, [usize; 2]) -> Vec<Linear>,
    ) -> Adversaries {
        let beside = match class {
            Class::Conditional if classes > 2 => REPEAT * classes,
            Class::Conditional | Class::Marker => REPEAT,
            _ => 0,
        };
        let mut list = Vec::new();
        for i in 0..modalities.len() {
            for j in i + 1..modalities.len() {
                let name = format!("disc.{}_{}", modalities[i].name, modalities[j].name);
                list.push(Discriminator { layers: layers(s, &name, [latent + beside, if log { 2 } else { 1 }]), i, j });
            }
        }
        Adversaries { list, class, classes, log }
    }

    /// `WHAT.A_B.A` and `WHAT.A_B.B` of all of them.
    pub fn terms(&self, what: &str, modalities: &[Modality]) -> Vec<String> {
        let name = |i: usize| &modalities[i].name;
        let both = |d: &Discriminator| [d.i, d.j].map(|side| format!("{what}.{}_{}.{}", name(d.i), name(d.j), name(side)));
        self.list.iter().flat_map(both).collect()
    }

    /// Each discriminator with each of its sides and the side's modality.
    pub fn sides(&self) -> impl Iterator<Item = (&Discriminator, usize, usize)> {
        self.list.iter().flat_map(|d| [(d, 0, d.i), (d, 1, d.j)])
    }

    /// The weight of a side's term: half a mean of both under the logarithm.
    pub fn weight(&self, weight: f32) -> Weight {
        Weight::Fixed(if self.log { 0.5 * weight } else { weight })
    }

    /// How far a discriminator is from saying that codes h [B, latent] of cells with these labels are of side 0 or 1.
    pub fn verdict(&self, s: &mut Step, d: &Discriminator, h: Var, labels: Option<Var>, side: usize) -> Var {
        let said = self.judge(s, d, h, labels);
        if self.log { s.cross_entropy(said, Target::Class(side), Var::NONE) } else { s.square_from(said, side as f32) }
    }

    fn judge(&self, s: &mut Step, d: &Discriminator, h: Var, labels: Option<Var>) -> Var {
        let seen = match (self.class, labels) {
            (Class::Conditional, Some(y)) if self.classes > 2 => s.one_hot(y, self.classes, REPEAT),
            (Class::Conditional | Class::Marker, Some(y)) => s.repeated(y, REPEAT),
            _ => return super::chain(&d.layers, s, h),
        };
        let h = s.beside(h, seen);
        super::chain(&d.layers, s, h)
    }
}

/// Layers of discriminator `name`: of the widths given, `hidden` between them and `last` at the end.
pub fn layers(
    widths: &[usize],
    [hidden, last]: [Activation; 2],
    mut layer: impl FnMut(usize, [usize; 2], Activation) -> Linear,
) -> Vec<Linear> {
    let end = widths.len() - 2;
    (0..=end).map(|l| layer(l, [widths[l], widths[l + 1]], if l == end { last } else { hidden })).collect()
}

/// The parameters of all discriminators, which step by themselves.
pub const DISCRIMINATORS: Group = 1;

/// The first `rows` rows of a modality's labels.
pub fn labels_of(s: &mut Step, cells: &Minibatch, modality: usize, rows: usize) -> Option<Var> {
    cells.labels.get(modality).map(|&y| s.rows_part(y, 0, rows))
}
