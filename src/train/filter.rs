//! Features and cells that show too little to learn from: what sequencing data are rid of before anything else.
//!
//!   features    kept where more than a share `min_detected` of the training cells, and `min_cells` of them at least, show them
//!   cells       kept where they show `min_features` of the features that are left at least; a cell that is left out of one modality is
//!               left out of all, so that pairs stay whole
//!   in turn     features, cells, and both once more, where cells are filtered: APOLLO's order for SHARE-seq (300 and 300)
//!
//! To show is to be neither 0 nor missing. Only training cells are left out, and only of the training: every cell has its embedding.

use crate::data::{Dataset, Modality};
use crate::error::{Error, Result};
use crate::models::settings::Settings;

/// What a modality asks for.
#[derive(Clone, Copy, Default)]
struct Bounds {
    share: f64,
    cells: usize,
    features: usize,
}

impl Bounds {
    fn of(settings: &Settings, modality: &Modality) -> Result<Bounds> {
        let has = |name: &str| settings.has(name);
        let count = |name: &str| if has(name) { settings.of(name, modality.name())?.count() } else { Ok(0) };
        let share = if has("min_detected") { settings.of("min_detected", modality.name())?.float()? } else { 0.0 };
        let bounds = Bounds { share, cells: count("min_cells")?, features: count("min_features")? };
        if modality.is_image() && (bounds.on_features() || bounds.features > 0) {
            let option =
                [("min_detected", share > 0.0), ("min_cells", bounds.cells > 0)].iter().find(|o| o.1).map_or("min_features", |o| o.0);
            let name = modality.name();
            return Err(Error::usage(format!("{name} is of images, whose pixels are not chosen among: leave {option}.{name} at 0")));
        }
        Ok(bounds)
    }

    fn on_features(&self) -> bool {
        self.share > 0.0 || self.cells > 0
    }
}

/// Whether [`filter`] takes cells out of the training, not features alone.
pub fn leaves_out(dataset: &Dataset, settings: &Settings) -> Result<bool> {
    let bounds = dataset.modalities().iter().map(|m| Bounds::of(settings, m)).collect::<Result<Vec<_>>>()?;
    Ok(bounds.iter().any(|b| b.features > 0))
}

/// Takes cells that show too little out of the training `rows` of every modality, and their pairs out of `units`; the features that are left,
/// ascending, by modality.
pub fn filter(dataset: &Dataset, rows: &mut [Vec<u32>], units: &mut Vec<usize>, settings: &Settings) -> Result<Vec<Vec<u32>>> {
    let modalities = dataset.modalities();
    let bounds = modalities.iter().map(|m| Bounds::of(settings, m)).collect::<Result<Vec<_>>>()?;
    let mut kept: Vec<Vec<u32>> = modalities.iter().map(|m| (0..m.features() as u32).collect()).collect();
    let cells_too = bounds.iter().any(|b| b.features > 0);
    for _ in 0..if cells_too { 2 } else { 1 } {
        for ((m, bounds), (kept, rows)) in
            modalities.iter().zip(&bounds).zip(kept.iter_mut().zip(&*rows)).filter(|(of, _)| of.1.on_features())
        {
            *kept = features(m, rows, bounds)?;
        }
        if cells_too {
            leave_out(dataset, &bounds, &kept, rows, units)?;
        }
    }
    Ok(kept)
}

/// The features that enough of the rows show.
fn features(modality: &Modality, rows: &[u32], bounds: &Bounds) -> Result<Vec<u32>> {
    let mut cells = vec![0usize; modality.features()];
    shown(modality, rows, |_, feature| cells[feature] += 1)?;
    let enough = |n: usize| n as f64 > bounds.share * rows.len() as f64 && n >= bounds.cells;
    let kept: Vec<u32> = (0u32..).zip(cells).filter(|&(_, n)| enough(n)).map(|(feature, _)| feature).collect();
    let name = modality.name();
    if kept.is_empty() && bounds.share > 0.0 {
        return Err(Error::usage(format!(
            "min_detected.{name} = {}: no feature of {name} is detected in more than {:.4} % of the training cells, so lower it",
            bounds.share,
            100.0 * bounds.share
        )));
    }
    if kept.is_empty() {
        let least = bounds.cells;
        return Err(Error::usage(format!(
            "min_cells.{name} = {least}: no feature of {name} is detected in {least} of the training cells, so lower it"
        )));
    }
    Ok(kept)
}

/// Takes out the cells that show too few of the features that are `kept`.
fn leave_out(dataset: &Dataset, bounds: &[Bounds], kept: &[Vec<u32>], rows: &mut [Vec<u32>], units: &mut Vec<usize>) -> Result<()> {
    let (modalities, links) = (dataset.modalities(), dataset.links());
    let mut gone: Vec<Vec<bool>> = modalities.iter().map(|m| vec![false; m.cells()]).collect();
    for (m, modality) in modalities.iter().enumerate().filter(|(m, _)| bounds[*m].features > 0) {
        let mut counted = vec![false; modality.features()];
        kept[m].iter().for_each(|&feature| counted[feature as usize] = true);
        let mut features = vec![0usize; modality.cells()];
        shown(modality, &rows[m], |row, feature| features[row] += usize::from(counted[feature]))?;
        rows[m].iter().for_each(|&row| gone[m][row as usize] = features[row as usize] < bounds[m].features);
    }
    units.retain(|&unit| {
        let cells = || (0..modalities.len()).filter_map(|m| Some((m, links.row(unit, m)? as usize)));
        let left_out = cells().any(|(m, row)| gone[m][row]);
        cells().for_each(|(m, row)| gone[m][row] |= left_out);
        !left_out
    });
    for ((modality, rows), gone) in modalities.iter().zip(rows).zip(&gone) {
        rows.retain(|&row| !gone[row as usize]);
        if rows.is_empty() {
            return Err(Error::usage(format!(
                "min_features leaves no training cell of {} that is whole with its pairs: lower it",
                modality.name()
            )));
        }
    }
    Ok(())
}

/// Calls `f` with the row and the feature of every value that is neither 0 nor missing.
fn shown(modality: &Modality, rows: &[u32], mut f: impl FnMut(usize, usize)) -> Result<()> {
    let there = |v: f32| v != 0.0 && !v.is_nan();
    let mut values = vec![0.0f32; if modality.is_sparse() { 0 } else { modality.features() }];
    for row in rows.iter().map(|&row| row as usize) {
        if let Some((columns, values)) = modality.sparse_row(row)? {
            columns.iter().zip(values).filter(|(_, v)| there(**v)).for_each(|(&c, _)| f(row, c as usize));
        } else {
            modality.row_into(row, &mut values)?;
            values.iter().enumerate().filter(|(_, v)| there(**v)).for_each(|(feature, _)| f(row, feature));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Hooks;
    use crate::data::formats::ModalitySource;
    use crate::data::import::{ImportSpec, import};
    use crate::data::preprocess::Recipe;
    use crate::data::simulate::{SimulateSpec, simulate};
    use crate::models::cross_modal::SPEC;
    use crate::train::common;

    #[test]
    fn features_that_too_few_training_cells_show_are_left_out_before_any_are_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let spec = SimulateSpec { recipe: "atlas", cells: Some(80), seed: 4, like: Some("multiome"), features: &[60, 50] };
        simulate(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let d = Dataset::open(&dir.path().join("d")).unwrap();
        let (names, rows) = ([d.modality(0), d.modality(1)].map(|m| m.name().to_string()), (0..40).collect::<Vec<u32>>());
        let chosen = |m: usize, flags: &[String]| {
            let mut settings = Settings::new(SPEC.name, SPEC.options, &names).unwrap();
            settings.apply_flags(flags).unwrap();
            common::resolve(&d, &mut settings).unwrap();
            let kept = filter(&d, &mut [rows.clone(), rows.clone()], &mut Vec::new(), &settings)?;
            common::chosen_features(d.modality(m), &rows, kept[m].clone(), &Recipe::parse("log1p,standardise").unwrap(), &settings)
        };
        for (m, modality) in d.modalities().iter().enumerate() {
            let features = modality.features();
            let mut seen = vec![0; features];
            let mut values = vec![0.0; features];
            for &row in &rows {
                match modality.sparse_row(row as usize).unwrap() {
                    Some((columns, _)) => columns.iter().for_each(|&c| seen[c as usize] += 1),
                    None => {
                        modality.row_into(row as usize, &mut values).unwrap();
                        seen.iter_mut().zip(&values).for_each(|(n, v)| *n += usize::from(*v != 0.0));
                    }
                }
            }
            // The rarest of those that are seen at all, and as rare ones, go: as many or fewer than the share.
            let rarest = *seen.iter().filter(|n| **n > 0).min().unwrap();
            let expected: Vec<u32> = (0u32..).zip(&seen).filter(|(_, n)| **n > rarest).map(|(f, _)| f).collect();
            assert!((1..features).contains(&expected.len()), "some go and some stay: {seen:?}");
            let flag = format!("min_detected.{}={}", names[m], rarest as f64 / 40.0);
            assert_eq!(chosen(m, std::slice::from_ref(&flag)).unwrap(), Some(expected.clone()));
            assert_eq!(chosen(1 - m, std::slice::from_ref(&flag)).unwrap(), None, "the other modality keeps all");
            let top = chosen(m, &[flag, format!("n_top_genes.{}=5", names[m])]).unwrap().unwrap();
            assert!(top.len() == 5 && top.iter().all(|f| expected.contains(f)) && top.is_sorted(), "{top:?}");
        }
        let e = chosen(0, &["min_detected=1".to_string()]).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("lower it"), "{e}");
        assert_eq!(chosen(0, &[]).unwrap(), None);
    }

    #[test]
    fn cells_and_features_that_show_too_little_go_in_turn_and_pairs_whole() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            ModalitySource { name: name[..1].into(), file, key: None }
        };
        let a = of("a.csv", "cell,a,b,c,d\nu,1,5,0,1\nv,3,5,0,0\nw,0,0,4,0\nx,0,2,2,0\ny,7,1,0,2\n");
        let b = of("b.csv", "cell,e,f\nx,1,1\ny,1,0\nu,2,1\nv,5,5\nw,0,9\n");
        let spec = ImportSpec { modalities: vec![a, b], ..Default::default() };
        import(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let d = Dataset::open(&dir.path().join("d")).unwrap();
        let filtered = |flags: &[&str]| {
            let apollo = crate::models::by_name("apollo").unwrap();
            let mut settings = Settings::new(apollo.name, apollo.options, &["a".to_string(), "b".to_string()]).unwrap();
            settings.apply_flags(&flags.iter().map(|f| f.to_string()).collect::<Vec<_>>()).unwrap();
            let (mut rows, mut units) = (vec![(0..5).collect::<Vec<u32>>(); 2], (0..5).collect());
            let kept = filter(&d, &mut rows, &mut units, &settings)?;
            let ids = |m: usize| rows[m].iter().map(|&r| d.modality(m).cell_id(r as usize)).collect::<String>();
            Ok::<_, Error>((kept, [ids(0), ids(1)], units.len()))
        };
        let all = |n: u32| (0..n).collect::<Vec<u32>>();
        assert_eq!(filtered(&[]).unwrap(), (vec![all(4), all(2)], ["uvwxy".into(), "xyuvw".into()], 5));
        assert_eq!(filtered(&["min_cells.a=3"]).unwrap(), (vec![vec![0, 1], all(2)], ["uvwxy".into(), "xyuvw".into()], 5));
        // First w goes, and y with what it lacks in b; then c and d are of one cell each, and without c x shows one feature.
        assert_eq!(filtered(&["min_cells.a=2", "min_features=2"]).unwrap(), (vec![vec![0, 1], all(2)], ["uv".into(), "uv".into()], 2));
        let told = |flags: &[&str]| filtered(flags).unwrap_err().to_string();
        assert!(told(&["min_cells.a=6"]).contains("detected in 6 of the training cells, so lower it"), "{}", told(&["min_cells.a=6"]));
        assert!(told(&["min_features.b=3"]).contains("min_features leaves no training cell of a"), "{}", told(&["min_features.b=3"]));
    }
}
