//! What is left of an interpretation: tables, a figure and a contact sheet a component.
//!
//!   features.csv    a row a feature, group and component where it was found in at least one split
//!   cells.csv       of each bin the cells nearest to the component's axis, nearest first

use super::super::write_table;
use super::bins::{BINS, GROUPS};
use super::{Component, Interpreted};
use crate::error::Result;
use std::path::Path;

/// The middle bin is 0.
const MIDDLE: i64 = (BINS as i64 - 1) / 2;

/// Writes `features.csv` of all spaces.
pub fn write_features(path: &Path, all: &[Interpreted]) -> Result<()> {
    let header = [
        "encoder",
        "space",
        "component",
        "group",
        "features_of",
        "feature",
        "count",
        "splits",
        "area",
        "effect_train",
        "effect_test",
        "effect",
        "goes_with",
        "representative",
    ];
    let rows = all.iter().flat_map(|i| i.components.iter().enumerate().map(move |(c, component)| (i, c, component))).flat_map(
        |(i, c, component)| {
            component.found.iter().map(move |r| {
                let member =
                    r.member.map_or_else(Default::default, |m| [(m.component + 1).to_string(), u8::from(m.representative).to_string()]);
                let [goes_with, representative] = member;
                vec![
                    i.from.clone(),
                    i.space.clone(),
                    (c + 1).to_string(),
                    GROUPS[r.group].into(),
                    i.of.clone(),
                    r.feature.clone(),
                    r.count.to_string(),
                    component.tested[r.group].to_string(),
                    r.area.to_string(),
                    r.effects[0].to_string(),
                    r.effects[1].to_string(),
                    i.effect.describe().into(),
                    goes_with,
                    representative,
                ]
            })
        },
    );
    write_table(path, &header, rows)
}

/// Writes `cells.csv` of all spaces.
pub fn write_cells(path: &Path, all: &[Interpreted]) -> Result<()> {
    let header = ["encoder", "space", "component", "bin", "rank", "cell", "score", "distance"];
    let components = all.iter().flat_map(|i| i.components.iter().enumerate().map(move |(c, component)| (i, c, component)));
    let rows = components.flat_map(|(i, c, component)| {
        component.representatives.iter().enumerate().flat_map(move |(bin, cells)| {
            cells.iter().enumerate().map(move |(rank, cell)| {
                vec![
                    i.from.clone(),
                    i.space.clone(),
                    (c + 1).to_string(),
                    (bin as i64 - MIDDLE).to_string(),
                    (rank + 1).to_string(),
                    cell.id.clone(),
                    cell.score.to_string(),
                    cell.off_axis.to_string(),
                ]
            })
        })
    });
    write_table(path, &header, rows)
}

impl Interpreted {
    /// What a component's files are called, without their endings.
    pub fn stem(&self, component: usize) -> String {
        let of = if self.of == self.from { String::new() } else { format!(".{}", self.of) };
        format!("{}.{}{of}.pc{}", self.from, self.space, component + 1)
    }

    /// A component of which space, for a person.
    pub fn title(&self, component: usize) -> String {
        format!("{}, {} space: component {}", self.from, self.space, component + 1)
    }

    /// Of the features that were found, the first so many of each group whose means by bin are known.
    pub fn telling<'a>(&self, component: &'a Component, most: usize) -> [Vec<&'a super::Reported>; 3] {
        std::array::from_fn(|g| component.found.iter().filter(|r| r.group == g && r.by_bin.is_some()).take(most).collect())
    }

    /// The figure of a component: means by bin of the most telling features of each group.
    #[cfg(feature = "plots")]
    pub fn figure(&self, component: usize, most: usize) -> crate::plot::profiles::Profiles {
        use crate::plot::profiles::{Profiles, Row, Section};
        let c = &self.components[component];
        let section = |(g, rows): (usize, Vec<&super::Reported>)| Section {
            title: format!("{} cells against the others, {} splits", GROUPS[g], c.tested[g]),
            columns: (0..BINS).filter(|&b| super::bins::group_of(b) == Some(g)).collect(),
            rows: rows
                .into_iter()
                .map(|r| Row {
                    name: r.feature.clone(),
                    values: r.by_bin.map_or_else(Vec::new, |b| b.to_vec()),
                    share: f64::from(r.count) / f64::from(c.tested[g].max(1)),
                    count: r.count.to_string(),
                    effect: r.effects[1],
                })
                .collect(),
        };
        Profiles {
            title: self.title(component),
            remark: format!(
                "{:.1} % of the variance; features of {} {}; {} cells, {} splits",
                100.0 * c.share,
                self.of,
                self.what,
                self.cells,
                self.splits
            ),
            columns: (0..BINS as i64).map(|b| (b - MIDDLE).to_string().replace('-', "−")).collect(),
            cells: c.cells.to_vec(),
            effect: self.effect.describe().to_string(),
            sections: self.telling(c, most).into_iter().enumerate().map(section).filter(|s| !s.rows.is_empty()).collect(),
        }
    }
}
