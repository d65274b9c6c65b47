//! Tables of cells, and the tables and peaks that are given beside them.

use crate::{Odd, modality, packed};
use std::ffi::OsString;

pub const TABLE: &str = "cell,g1,g2\nc1,1,2.5\nc2,3,4\nc3,5,6\n";

/// Alone.
pub fn tables(odd: &mut Odd) {
    for (ending, text) in [("csv", TABLE.to_string()), ("tsv", TABLE.replace(',', "\t"))] {
        let name = format!("t.{ending}");
        odd.accept(&odd.write(&name, &text), &[]);
        // At every structural boundary: nothing, inside the header, after it, inside a row.
        let end_of_header = text.find('\n').unwrap();
        odd.cuts("cut", &name, text.as_bytes(), [0, 4, end_of_header, end_of_header + 1, end_of_header + 3, end_of_header + 5]);
        let gz = packed(&text);
        odd.cuts(
            "cut",
            &format!("{name}.gz"),
            &gz,
            [0, 1, 2, 3, 9, 10, 11, gz.len() / 2, gz.len() - 9, gz.len() - 8, gz.len() - 4, gz.len() - 1],
        );
        let mut flipped = gz.clone();
        flipped[gz.len() - 6] ^= 1;
        odd.refuse("damaged", &format!("{name}.gz"), &flipped);
        for (kind, from, to) in [
            ("value", "2.5", "NaN"),
            ("value", "2.5", "inf"),
            ("value", "2.5", "1e60"),
            ("value", "2.5", "two"),
            ("value", "2.5", "\"2\n5\""),
            ("value", "2.5", "\u{1b}[2J"),
            ("value", "2.5", "0x10"),
            ("duplicate", "c3", "c1"),
            ("shape", "4\n", "4;4;4\n"),
            ("shape", ";4\n", "\n"),
            ("name", "c2", " "),
        ] {
            let separator = if ending == "csv" { "," } else { "\t" };
            let (from, to) = (from.replace(';', separator), to.replace(';', separator));
            odd.refuse(kind, &name, text.replacen(&from, &to, 1));
        }
        odd.refuse("empty", &name, text.lines().next().unwrap());
        odd.refuse("empty", &name, "cell\nc1\n");
        odd.refuse(
            "encoding",
            &name,
            text.replacen("c2", "?", 1).into_bytes().iter().map(|&b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>(),
        );
        odd.refuse(
            "encoding",
            &name,
            text.replacen("g2", "?", 1).into_bytes().iter().map(|&b| if b == b'?' { 0xe9 } else { b }).collect::<Vec<_>>(),
        );
        odd.refuse("encoding", &name, text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
        odd.refuse("encoding", &name, text.replace('\n', "\r"));
        odd.accept(&odd.write(&format!("crlf-{name}"), text.replace('\n', "\r\n")), &[]);
        odd.accept(&odd.write(&format!("one-{name}"), text.lines().take(2).collect::<Vec<_>>().join("\n")), &[]);
    }
}

/// Labels, pairs, peaks and genes.
pub fn beside_a_good_file(odd: &mut Odd) {
    let good = odd.write("good.csv", TABLE);
    for (name, flag, bytes) in [
        ("l.csv", "--labels", &b""[..]),
        ("l.csv", "--labels", b"cell\nc1\n"),
        ("l.csv", "--labels", b"cell,a,a\nc1,1,2\n"),
        ("l.csv", "--labels", b"cell,a\nc1,1\nc1,2\n"),
        ("l.csv", "--labels", b"cell,a\nc1,1,2\n"),
        ("l.csv", "--labels", b"cell,a\nc1,\xff\n"),
        ("l.csv.gz", "--labels", b"\x1f\x8b\x08\x00"),
        ("p.csv", "--pairs", b""),
        ("p.csv", "--pairs", b"x,y\nc1\n"),
        ("p.csv", "--pairs", b"x,y\nc1,nobody\n"),
        ("p.csv", "--pairs", b"x,y,confidence\nc1,c1,2\n"),
        ("p.csv", "--pairs", b"x,y\nc1,\xff\n"),
        ("g.bed", "--gene-activity", b""),
        ("g.bed", "--gene-activity", b"chr1\t1\n"),
        ("g.bed", "--gene-activity", b"chr1\t1\t2\nchr1\t5\t4\n"),
        ("g.bed", "--gene-activity", b"chr1\t1\t\xff\n"),
        ("g.bed.gz", "--gene-activity", b"\x1f\x8b\x08\x00"),
    ] {
        let path = odd.write(name, bytes);
        let mut args = modality(&good, &[]);
        args.extend([OsString::from(flag), path.clone().into()]);
        if flag == "--pairs" {
            args.extend(["--modality".into(), format!("y={}", good.display()).into()]);
        }
        if flag == "--gene-activity" {
            args.extend(["--genes".into(), odd.write("genes.bed", "chr1\t1\t9\tA\t0\t+\n").into()]);
        }
        odd.refuse_args("beside", &args, &[name]);
        std::fs::remove_file(path).unwrap();
    }
}
