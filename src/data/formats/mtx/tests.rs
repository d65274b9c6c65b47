use super::*;
use proptest::prelude::*;

fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn read(file: &Path, key: Option<&str>, rows: Option<RowsAre>) -> Result<(Head, Vec<Vec<f32>>)> {
    let scratch = tempfile::tempdir().unwrap();
    let mut source = super::super::open(&Opening { file, key, rows, missing_nan: false, scratch: scratch.path() })?;
    let (mut out, mut row) = (Vec::new(), Row::default());
    source.rows.prepare("x", &mut Hooks::default())?;
    while source.rows.next_row(&mut row)? {
        let mut dense = vec![0.0; source.head.width()];
        for (&i, &v) in row.indices.iter().zip(&row.values) {
            dense[i as usize] = v;
        }
        out.push(dense);
    }
    Ok((source.head, out))
}

fn complaint(content: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.mtx", content);
    read(&path, None, Some(RowsAre::Cells)).unwrap_err().to_string()
}

const BANNER: &str = "%%MatrixMarket matrix coordinate integer general\n";

#[test]
fn both_orientations_and_all_kinds_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.mtx", &format!("{BANNER}% comment\n\n2 3 3\n2 1 5\n1 3 7\n2 2 1\n"));
    assert_eq!(read(&path, None, Some(RowsAre::Cells)).unwrap().1, [[0.0, 0.0, 7.0], [5.0, 1.0, 0.0]]);
    assert_eq!(read(&path, None, Some(RowsAre::Features)).unwrap().1, [[0.0, 5.0], [0.0, 1.0], [7.0, 0.0]]);
    let path = write(dir.path(), "p.mtx", "%%MatrixMarket matrix coordinate pattern general\n1 2 1\n1 2\n");
    assert_eq!(read(&path, None, Some(RowsAre::Cells)).unwrap().1, [[0.0, 1.0]]);
    let path = write(dir.path(), "d.mtx", "%%MatrixMarket matrix array real general\n2 2\n1.5\n0\n-2\n4e1\n");
    assert_eq!(read(&path, None, Some(RowsAre::Cells)).unwrap().1, [[1.5, -2.0], [0.0, 40.0]]);
}

#[test]
fn names_beside_it_give_ids_and_features_and_types_must_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "s1_matrix.mtx", &format!("{BANNER}3 2 3\n1 1 4\n3 1 6\n2 2 5\n"));
    write(dir.path(), "s1_barcodes.tsv", "AAA-1\nCCC-1\n");
    write(dir.path(), "s1_features.tsv", "E1\tGata1\tGene Expression\nE2\tCD3\tAntibody Capture\nE3\tKlf1\tGene Expression\n");
    let message = read(dir.path(), None, None).unwrap_err().to_string();
    assert!(message.contains("Gene Expression (2), Antibody Capture (1)"), "{message}");
    let (head, rows) = read(dir.path(), Some("Gene Expression"), None).unwrap();
    assert_eq!(rows, [[4.0, 6.0], [0.0, 0.0]]);
    assert_eq!((head.cell_ids.unwrap()[1].as_str(), head.features.unwrap()), ("CCC-1", vec!["Gata1".to_string(), "Klf1".to_string()]));
    let message = read(dir.path(), Some("Gene Expresion"), None).unwrap_err().to_string();
    assert!(message.contains("did you mean Gene Expression?"), "{message}");
    write(dir.path(), "s1_barcodes.tsv", "AAA-1\n");
    assert!(read(dir.path(), None, None).unwrap_err().to_string().contains("has 1 lines"));
    std::fs::remove_file(dir.path().join("s1_barcodes.tsv")).unwrap();
    assert!(read(dir.path(), None, None).unwrap_err().to_string().contains("no barcodes.tsv"));
}

#[test]
fn complaints_name_the_line() {
    assert!(complaint("1 2 3\n").contains("line 1: not a MatrixMarket"));
    assert!(complaint("%%MatrixMarket matrix coordinate complex general\n1 1 0\n").contains("complex"));
    assert!(complaint("%%MatrixMarket matrix coordinate real symmetric\n1 1 0\n").contains("symmetric"));
    assert!(complaint(&format!("{BANNER}2 2\n")).contains("line 2"));
    assert!(complaint(&format!("{BANNER}2 2 1\n3 1 1\n")).contains("line 3: the entry at row 3, column 1 lies outside"));
    assert!(complaint(&format!("{BANNER}2 2 1\n0 1 1\n")).contains("outside"));
    assert!(complaint(&format!("{BANNER}2 2 1\n-1 1 1\n")).contains("not an entry"));
    assert!(complaint(&format!("{BANNER}2 2 1\n1 1 x\n")).contains("not an entry"));
    assert!(complaint(&format!("{BANNER}2 2 1\n1 1 1e99\n")).contains("too large"));
    assert!(complaint(&format!("{BANNER}2 2 2\n1 1 1\n")).contains("after 1 of its 2 entries"));
    assert!(complaint(&format!("{BANNER}2 2 1\n1 1 1\n2 2 2\n")).contains("more entries"));
    assert!(complaint(&format!("{BANNER}2 2 1\n1 1 nan\n")).contains("--missing nan"));
    assert!(complaint(&format!("{BANNER}0 2 0\n")).contains("no cells"));
    assert!(complaint(BANNER).contains("ends before"));
}

#[test]
fn alone_it_wants_to_be_told_what_rows_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.mtx", &format!("{BANNER}2 2 0\n"));
    assert!(read(&path, None, None).unwrap_err().to_string().contains("--rows cells"));
}

proptest! {
    #[test]
    fn any_text_gives_rows_or_an_error(text in "[0-9 .e%\n-]{0,80}") {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "a.mtx", &format!("{BANNER}3 3 2\n{text}"));
        let _ = read(&path, None, Some(RowsAre::Cells));
        let path = write(dir.path(), "b.mtx", &text);
        let _ = read(&path, None, Some(RowsAre::Features));
    }
}
