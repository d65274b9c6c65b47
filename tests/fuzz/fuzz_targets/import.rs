//! Everything that stands beside the matrices: [options][x, y, labels, pairs, peaks, genes]; matrices are tables, and a third modality is x once
//! more.
#![no_main]

use couplet::data::gene_activity::{GeneActivity, Peaks};
use couplet::data::import::{ImportSpec, LabelSource};
use couplet::data::pairs::PairsRule;
use couplet_fuzz::{hold, import_and_read, modality, parts};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, files)) = data.split_first() else { return };
    let [x, y, labels, pairs, peaks, genes] = parts(files);
    let all = [("x.csv", x), ("y.csv", y), ("labels.tsv", labels), ("pairs.csv", pairs), ("peaks.bed", peaks), ("genes.gtf", genes)];
    let there: Vec<_> = all.into_iter().filter(|(_, f)| !f.is_empty()).collect();
    hold(&there, |dir| {
        let file = |name: &str| Some(dir.join(name)).filter(|p| p.exists());
        let tables = [("x", "x.csv"), ("y", "y.csv"), ("z", "x.csv")].into_iter().take(if options & 128 != 0 { 3 } else { 2 });
        let modalities = tables.filter_map(|(name, table)| Some(modality(name, file(table)?, None))).collect();
        let of = (options & 2 != 0).then(|| "y".to_string());
        let labels = file("labels.tsv").map(|file| LabelSource { modality: of, file, column: (options & 4 != 0).then(|| "kind".into()) });
        let pairs = match (file("pairs.csv"), options >> 3 & 3) {
            (Some(file), _) => Some(PairsRule::File(file)),
            (None, 0) => None,
            (None, 1) => Some(PairsRule::ByRow),
            (None, 2) => Some(PairsRule::ByName),
            (None, _) => Some(PairsRule::None),
        };
        let activity = file("genes.gtf").map(|genes| GeneActivity {
            modality: (options & 32 != 0).then(|| "x".into()),
            peaks: file("peaks.bed").map_or(Peaks::Names, Peaks::Bed),
            genes,
            attribute: None,
            upstream: u64::from(options & 64) * 10,
        });
        let labels = labels.into_iter().collect();
        import_and_read(&ImportSpec { modalities, labels, pairs, missing_nan: options & 1 != 0, activity, ..Default::default() }, dir)
    });
});
