//! What the corpora start with: `seeds CORPUS GOLDEN` fills CORPUS/TARGET for every target, with small files of each kind that a parser
//! knows, the HDF5 files of tests/golden among them.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use couplet::data::Hooks;
use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, LabelSource, import};
use couplet::data::pairs::PairsRule;
use couplet_fuzz::runs::{MODELS, runs};
use couplet_fuzz::{DATASET_FILES, HDF5_KEYS, checksums, gz, joined, npz};

/// Larger files would only slow the mutations down.
const LARGEST: usize = 80 << 10;

struct Corpus(PathBuf);

impl Corpus {
    fn add(&self, target: &str, name: &str, options: Option<u8>, bytes: &[u8]) {
        let dir = self.0.join(target);
        fs::create_dir_all(&dir).expect("a folder");
        let all: Vec<u8> = options.into_iter().chain(bytes.iter().copied()).collect();
        fs::write(dir.join(format!("seed-{name}")), all).expect("a file");
    }
}

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(corpus), Some(golden)) = (args.next(), args.next()) else { panic!("seeds CORPUS GOLDEN") };
    let corpus = Corpus(corpus);
    hdf5(&corpus, &golden.join("hdf5"));
    arrays(&corpus);
    tables(&corpus);
    images(&corpus);
    places(&corpus);
    datasets(&corpus);
    trained(&corpus);
    let _ = fs::remove_dir_all(couplet_fuzz::root());
}

fn hdf5(corpus: &Corpus, golden: &Path) {
    for entry in fs::read_dir(golden).expect("golden files").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let key = match name.as_str() {
            "pair.h5mu" => "rna",
            "10x-multiome.h5" => "Peaks",
            "10x-genomes.h5" => "mm10",
            "no-x.h5ad" => "counts",
            "raw.h5ad" => "raw",
            _ => "",
        };
        let at = HDF5_KEYS.iter().position(|k| k.unwrap_or("") == key).expect("a key") as u8;
        let bytes = fs::read(&path).expect("a golden file");
        if name.ends_with(".py") || bytes.len() > LARGEST {
            continue;
        }
        corpus.add("hdf5", &name, Some(at << 2 | u8::from(name.starts_with("nan"))), &checksums::with_table(bytes));
    }
}

fn npy(descr: &str, shape: &str, fortran: bool, body: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    text += &" ".repeat(63 - (10 + text.len()) % 64);
    text.push('\n');
    [b"\x93NUMPY\x01\x00", (text.len() as u16).to_le_bytes().as_slice(), text.as_bytes(), body].concat()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn arrays(corpus: &Corpus) {
    let six = [0.0, 1.0, 2.5, 3.0, 0.0, -1.0];
    for (name, descr, bytes) in [
        ("f4", "<f4", f32s(&six)),
        ("f4-big", ">f4", six.iter().flat_map(|v| v.to_be_bytes()).collect()),
        ("f8", "<f8", six.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect()),
        ("f2", "<f2", vec![0, 0x3c, 0, 0x40, 0, 0x42, 0, 0, 0, 0x3c, 0, 0]),
        ("i8", "<i8", (0..6i64).flat_map(i64::to_le_bytes).collect()),
        ("u1", "|u1", (0..6).collect()),
        ("u2", "<u2", (0..6u16).flat_map(u16::to_le_bytes).collect()),
        ("b1", "|b1", vec![0, 1, 1, 0, 1, 0]),
    ] {
        corpus.add("npy", name, Some(0), &npy(descr, "(3, 2)", false, &bytes));
        corpus.add("npy", &format!("{name}-fortran"), Some(1), &npy(descr, "(3, 2)", true, &bytes));
        corpus.add("npy", &format!("{name}-place"), Some(2), &npy(descr, "(1, 1, 2, 3)", false, &bytes));
    }
    let i64s = |v: &[i64]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let text = |word: &[u8]| npy("|S3", "()", false, word);
    let (data, shape) = (npy("<f4", "(3,)", false, &f32s(&[1.0, 2.0, 3.0])), npy("<i8", "(2,)", false, &i64s(&[3, 3])));
    let (indices, indptr) = (npy("<i4", "(3,)", false, &i32s(&[1, 2, 0])), npy("<i4", "(4,)", false, &i32s(&[0, 2, 2, 3])));
    for (name, format, third) in [("csr", &b"csr"[..], false), ("csc", b"csc", false), ("coo", b"coo", true)] {
        // In coo the arrays of places are called row and col.
        let packed = [text(format), shape.clone(), data.clone(), indices.clone(), indptr.clone(), Vec::new()];
        let parts: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        corpus.add("npz", &format!("{name}-parts"), Some(4), &joined(&parts));
        if !third {
            let all: [&[u8]; 6] = std::array::from_fn(|i| parts[i]);
            corpus.add("npz", name, Some(0), &npz(&all));
        }
    }
    let dense = npy("<f4", "(3, 2)", false, &f32s(&six));
    corpus.add("npz", "dense", Some(0), &npz(&[&[], &[], &[], &[], &[], &dense]));
    corpus.add("npz", "dense-parts", Some(4 | 8), &joined(&[&[], &[], &[], &[], &[], &dense]));
    let general = "%%MatrixMarket matrix coordinate integer general\n% a comment\n3 4 5\n1 1 2\n2 1 3\n3 2 1\n1 4 7\n2 3 9\n";
    let (barcodes, features) = ("c1\nc2\nc3\nc4\n", "g1\tA\tGene Expression\ng2\tB\tGene Expression\ng3\tC\tPeaks\n");
    for (name, options, matrix) in [
        ("folder", 2 | 4, general.to_string()),
        ("rows-cells", 2 | 8, general.to_string()),
        ("rows-features", 2 | 16, general.to_string()),
        ("real", 2 | 16, general.replace("integer", "real").replace(" 7", " -7.5e1")),
        ("pattern", 2 | 8, "%%MatrixMarket matrix coordinate pattern general\n2 2 2\n1 1\n2 2\n".into()),
        ("symmetric", 2 | 8, "%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n1 1 3\n2 1 4\n".into()),
        ("array", 2 | 8, "%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n".into()),
    ] {
        corpus.add("mtx", name, Some(options), &joined(&[matrix.as_bytes(), barcodes.as_bytes(), features.as_bytes()]));
    }
    corpus.add("mtx", "alone", Some(2 | 8), general.as_bytes());
    corpus.add("mtx", "packed", Some(4), &joined(&[&gz(general.as_bytes()), barcodes.as_bytes(), features.as_bytes()]));
}

fn tables(corpus: &Corpus) {
    let table = "cell,g1,g2\nc1,1,2.5\nc2,3,-4e-1\nc3,5,nan\n";
    let quoted = "\"\",\"g 1\",\"g\"\"2\"\r\n\"c1\",1,2\r\nc2,,4\r\n";
    let tabs = table.replace(',', "\t");
    corpus.add("table", "csv", Some(1), table.as_bytes());
    corpus.add("table", "tsv", Some(1 | 2), tabs.as_bytes());
    corpus.add("table", "quoted", Some(1), quoted.as_bytes());
    corpus.add("table", "gz-inside", Some(1 | 8), table.as_bytes());
    corpus.add("table", "gz", Some(1 | 4), &gz(table.as_bytes()));
    corpus.add("table", "no-ids", Some(0), b"g1,g2\n1,2\n3,4\n");
    let (x, y) = ("cell,chr1:0-10,chr1:20-30\na,1,0\nb,2,3\nc,0,1\n", "cell,p,q,r\nb,1,2,3\na,4,5,6\nd,7,8,9\n");
    let labels = "cell\tkind\tdepth\na\tT\t1.5\nb\tB\t2\nc\t\t3\nd\tT\t\n";
    let (pairs, bed) = ("x,y,confidence\na,d,0.5\nb,b,1\n", "chr1\t0\t10\nchr1\t20\t30\n");
    let genes = "chr1\tsrc\tgene\t5\t25\t.\t+\t.\tgene_id \"E1\"; gene_name \"G\";\nchr1\tsrc\tgene\t1\t4\t.\t-\t.\tgene_id \"E2\"; gene_name \"H\";\n";
    let import = [x, y, labels, pairs, bed, genes].map(str::as_bytes);
    let upto = |n: usize| joined(&import.iter().enumerate().map(|(i, f)| if i < n { *f } else { &[] }).collect::<Vec<_>>());
    for (name, options, n) in
        [("two", 0, 2), ("by-row", 8, 2), ("by-name", 16, 2), ("unpaired", 24, 2), ("labels", 4, 3), ("of-y", 2, 3), ("pairs", 0, 4)]
    {
        corpus.add("import", name, Some(options), &upto(n));
    }
    let only = |files: [usize; 3]| joined(&(0..6).map(|i| if files.contains(&i) { import[i] } else { &[] }).collect::<Vec<_>>());
    let of_three = [x, y, "", "z,x,y\na,a,d\n,b,b\n", "", ""].map(str::as_bytes);
    corpus.add("import", "three", Some(128), &joined(&of_three));
    corpus.add("import", "genes-bed", Some(64), &only([0, 4, 5]));
    corpus.add("import", "genes-names", Some(32), &only([0, 1, 5]));
    corpus.add("sets", "two", None, b"set,feature\nfirst,g0\nfirst,g1\nsecond,g4\n");
    corpus.add("sets", "spaces", None, b"feature , more, set\r\n g2 ,1,\"a, b\"\r\n");
    for (i, word) in [
        "auto",
        "none",
        "log1p,standardise",
        "total=10000,log1p",
        "0.2",
        "split=test",
        "lr=0.001",
        "hidden=16,16",
        "latent.x=3",
        "alpha=auto",
        "rna=a.h5ad#X",
        "x=labels.csv#kind",
        "preprocess.y=log1p",
        "w_nce.x=0.5",
        "reshuffle=false",
        "top_genes=2000",
    ]
    .iter()
    .enumerate()
    {
        corpus.add("words", &i.to_string(), None, word.as_bytes());
    }
}

fn images(corpus: &Corpus) {
    for (name, colour, depth, bytes) in [
        ("grey", png::ColorType::Grayscale, png::BitDepth::Eight, 1),
        ("grey16", png::ColorType::Grayscale, png::BitDepth::Sixteen, 2),
        ("bit", png::ColorType::Grayscale, png::BitDepth::One, 0),
        ("rgb", png::ColorType::Rgb, png::BitDepth::Eight, 3),
        ("rgba16", png::ColorType::Rgba, png::BitDepth::Sixteen, 8),
        ("palette", png::ColorType::Indexed, png::BitDepth::Four, 0),
    ] {
        let (mut out, size) = (Vec::new(), if bytes == 0 { 4 } else { 16 * bytes });
        let mut encoder = png::Encoder::new(&mut out, 4, 4);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == png::ColorType::Indexed {
            encoder.set_palette((0..48).collect::<Vec<u8>>());
        }
        let size = if colour == png::ColorType::Indexed { 8 } else { size };
        let mut writer = encoder.write_header().expect("memory");
        writer.write_image_data(&(0..size as u8).collect::<Vec<_>>()).expect("memory");
        drop(writer);
        corpus.add("png", name, Some(0), &out);
        corpus.add("png", &format!("{name}-two"), Some(2), &joined(&[&out, &out]));
    }
    use tiff::encoder::{Compression, TiffEncoder, colortype};
    let pixels: Vec<u16> = (0..16).map(|i| i * 100).collect();
    for (name, compression) in [
        ("plain", Compression::Uncompressed),
        ("lzw", Compression::Lzw),
        ("deflate", Compression::Deflate(Default::default())),
        ("packbits", Compression::Packbits),
    ] {
        let mut stack = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut stack).expect("memory").with_compression(compression);
        for _ in 0..2 {
            encoder.write_image::<colortype::Gray16>(4, 4, &pixels).expect("memory");
        }
        corpus.add("tiff", &format!("{name}-stack"), Some(2), stack.get_ref());
        let mut one = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut one).expect("memory").with_compression(compression);
        encoder.write_image::<colortype::RGB8>(4, 4, &(0..48).collect::<Vec<u8>>()).expect("memory");
        corpus.add("tiff", name, Some(0), one.get_ref());
    }
    let mut floats = Cursor::new(Vec::new());
    TiffEncoder::new_big(&mut floats)
        .and_then(|mut e| e.write_image::<colortype::Gray32Float>(2, 2, &[0.0, 1.0, 2.5, -3.0]))
        .expect("memory");
    corpus.add("tiff", "big-float", Some(0), floats.get_ref());
}

fn places(corpus: &Corpus) {
    let bed = "track name=x\nchr1 100 200 A 0 -\nchr2\t0\t1\tB\n";
    let gtf = "#!genome\nchr1\tx\tgene\t101\t200\t.\t-\t.\tgene_id \"E1\"; gene_name \"A;1\"; level 2;\nchr2\tx\texon\t1\t1\t.\t+\t.\tgene_id \"E2\";\n";
    corpus.add("intervals", "bed-genes", Some(0), bed.as_bytes());
    corpus.add("intervals", "bed-genes-upstream", Some(8), b"chr1\t100\t200\tA\t0\t-\n");
    corpus.add("intervals", "bed-peaks", Some(4), bed.as_bytes());
    corpus.add("intervals", "gtf", Some(1 | 8), gtf.as_bytes());
    corpus.add("intervals", "gtf-id", Some(1 | 16), gtf.as_bytes());
    corpus.add("intervals", "gtf-gz", Some(3), &gz(gtf.as_bytes()));
    corpus.add("intervals", "names", Some(4), b"chr1:100-200\nchr1-100-200\nchr1_1,000_2,000\n");
}

fn datasets(corpus: &Corpus) {
    let dir = couplet_fuzz::root().join("seeds");
    fs::create_dir_all(&dir).expect("a folder");
    let put = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).expect("a file");
        dir.join(name)
    };
    let x = put("x.mtx", b"%%MatrixMarket matrix coordinate integer general\n4 3 5\n1 1 2\n2 1 3\n3 2 1\n1 3 7\n4 3 9\n");
    let y = put("y.csv", b"cell,p,q\n0,1,2\n1,3,4\n2,5,6\n3,7,8\n");
    let labels = put("labels.csv", b"cell,kind,depth\n0,a,1\n1,b,2\n2,a,3\n3,,4\n");
    let pairs = put("pairs.csv", b"x,y,confidence\n0,1,0.5\n2,2,1\n");
    let spec = ImportSpec {
        modalities: [("x", x), ("y", y)].map(|(name, file)| ModalitySource { name: name.into(), file, key: None }).into(),
        labels: vec![LabelSource { modality: None, file: labels, column: None }],
        pairs: Some(PairsRule::File(pairs)),
        rows: Some(couplet::data::formats::RowsAre::Cells),
        ..Default::default()
    };
    let out = dir.join("out");
    import(&spec, &out, &mut Hooks::default()).expect("a dataset");
    let files: Vec<Vec<u8>> = DATASET_FILES.iter().map(|f| fs::read(out.join(f)).unwrap_or_default()).collect();
    corpus.add("dataset", "both", None, &joined(&files.iter().map(Vec::as_slice).collect::<Vec<_>>()));
}

fn trained(corpus: &Corpus) {
    for (at, ((name, _), dir)) in MODELS.iter().zip(&runs().dirs).enumerate() {
        let file = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
        corpus.add("config", name, None, &file("config.toml"));
        corpus.add("model", name, Some(at as u8), &file("model.safetensors"));
        let files = ["checkpoint/state.safetensors", "history.csv", "F.npy"].map(file);
        corpus.add("checkpoint", name, Some(at as u8), &joined(&files.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    }
}
