//! BED and GTF: [which][file]; genes are made longer and overlapped with the peaks that their own places give.
#![no_main]

use couplet::data::intervals::{extend_upstream, genes_of, overlaps, peak_of_name, peaks_of_bed};
use couplet_fuzz::hold;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, file)) = data.split_first() else { return };
    let name = ["x.bed", "x.gtf", "x.bed.gz", "x.gtf.gz"][usize::from(which & 3)];
    hold(&[(name, file)], |dir| {
        let path = dir.join(name);
        if which & 4 != 0 {
            return peaks_of_bed(&path).map(|_| ());
        }
        let attribute = [None, Some("gene_id"), Some("level")][usize::from(which >> 4) % 3];
        let mut genes = genes_of(&path, attribute)?;
        let peaks: Vec<_> = genes.iter().map(|g| g.body.clone()).collect();
        if which & 8 != 0 {
            extend_upstream(&mut genes, 2000, &path)?;
        }
        let (starts, found) = overlaps(&peaks, &genes);
        assert_eq!((starts.len(), starts.last().copied()), (peaks.len() + 1, Some(found.len())));
        Ok(())
    });
    for line in file.split(|&b| b == b'\n').filter_map(|l| std::str::from_utf8(l).ok()) {
        if let Some(peak) = peak_of_name(line) {
            assert!(peak.start < peak.end, "{line:?}");
        }
    }
});
