//! The options of one run, resolved: every option of the model's table has a value for every modality or pair it is
//! given for, and knows where the value came from.
//!
//! Sources are applied in the order of [`Source`]; a later one wins, and within one source `alpha.NAME` wins over `alpha`.

use super::options::{OptionSpec, Per, Value};
use crate::error::{Error, Result, nearest};
use std::path::Path;

/// Where a value came from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The model's table, or worked out from the data.
    Default,
    /// The dataset's `train.toml`: what its recipe wants.
    Recipe,
    /// `--config`.
    File,
    /// `--set` or a flag of its own.
    Flag,
}

#[derive(Clone, Debug)]
struct Entry {
    spec: &'static OptionSpec,
    /// The modality, or the pair as `A_B`; empty for the run.
    of: String,
    value: Value,
    source: Source,
}

/// The resolved options of a run, in the order of the model's table.
#[derive(Clone, Debug)]
pub struct Settings {
    model: &'static str,
    modalities: Vec<String>,
    entries: Vec<Entry>,
}

/// One value, to be read as the type it has.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a>(&'a Entry);

impl Settings {
    /// Every option at its default.
    pub fn new(model: &'static str, specs: &'static [OptionSpec], modalities: &[String]) -> Result<Settings> {
        let mut entries = Vec::new();
        for spec in specs {
            let value = spec.parse(spec.default)?;
            let of: Vec<String> = match spec.per {
                Per::Run => vec![String::new()],
                Per::Modality => modalities.to_vec(),
                Per::Pair => pairs(modalities),
            };
            entries.extend(of.into_iter().map(|of| Entry { spec, of, value: value.clone(), source: Source::Default }));
        }
        Ok(Settings { model, modalities: modalities.to_vec(), entries })
    }

    /// The names of the modalities, in order.
    pub fn modalities(&self) -> &[String] {
        &self.modalities
    }

    /// Applies `key=value` texts of the command line.
    pub fn apply_flags(&mut self, assignments: &[String]) -> Result<()> {
        let mut split = Vec::new();
        for a in assignments {
            let Some((key, value)) = a.split_once('=') else {
                return Err(Error::usage(format!("--set {a}: write KEY=VALUE, for example --set lr=0.001")));
            };
            split.push((key.trim(), value));
        }
        for (key, text) in base_first(split, |(key, _)| key.contains('.')) {
            self.assign(key, Source::Flag, |spec| spec.parse(text)).map_err(|e| Error::usage(format!("--set {key}: {e}")))?;
        }
        Ok(())
    }

    /// Applies one value that has a flag of its own, such as `--latent`.
    pub fn apply_flag(&mut self, key: &str, text: &str) -> Result<()> {
        self.assign(key, Source::Flag, |spec| spec.parse(text)).map_err(|e| Error::usage(format!("--{key}: {e}")))
    }

    /// Applies a table of `file`: `key = value`, and `key.NAME = value` for one modality or pair.
    pub fn apply_table(&mut self, file: &Path, table: &toml::Table, source: Source) -> Result<()> {
        let mut flat = Vec::new();
        for (key, value) in table {
            match value {
                toml::Value::Table(of) => flat.extend(of.iter().map(|(name, v)| (format!("{key}.{name}"), v))),
                _ => flat.push((key.clone(), value)),
            }
        }
        for (key, value) in base_first(flat, |(key, _)| key.contains('.')) {
            self.assign(&key, source, |spec| spec.from_toml(value))
                .map_err(|e| Error::input(file, format!("key {key:?}"), e.to_string()))?;
        }
        Ok(())
    }

    /// Writes out a default that was worked out from the data, where the value is still `auto`.
    pub fn fill(&mut self, key: &str, of: &str, value: Value) {
        for e in self.entries.iter_mut().filter(|e| e.value == Value::Auto && same(e.spec.name, key) && e.of == of) {
            e.value = value.clone();
        }
    }

    fn assign(&mut self, key: &str, source: Source, value: impl Fn(&OptionSpec) -> Result<Value>) -> Result<()> {
        let (name, of) = match key.split_once('.') {
            Some((name, of)) => (name, Some(of)),
            None => (key, None),
        };
        let spec = self.entries.iter().map(|e| e.spec).find(|s| same(s.name, name)).ok_or_else(|| self.unknown(name))?;
        let of = of.map(|of| self.part(spec, of)).transpose()?;
        let value = value(spec)?;
        for e in self.entries.iter_mut().filter(|e| std::ptr::eq(e.spec, spec) && of.as_ref().is_none_or(|of| *of == e.of)) {
            (e.value, e.source) = (value.clone(), source);
        }
        Ok(())
    }

    /// The modality or pair that `of` names, pairs in either order.
    fn part(&self, spec: &OptionSpec, of: &str) -> Result<String> {
        let have = match spec.per {
            Per::Run => return Err(Error::usage(format!("{} is one value for the whole run: leave .{of} out", spec.name))),
            Per::Modality => self.modalities.clone(),
            Per::Pair => pairs(&self.modalities),
        };
        if have.iter().any(|h| h == of) {
            return Ok(of.to_string());
        }
        let turned = |i: usize, j: usize| format!("{}_{}", self.modalities[j], self.modalities[i]) == of;
        if spec.per == Per::Pair
            && let Some((i, j)) = (0..self.modalities.len()).flat_map(|i| (0..i).map(move |j| (j, i))).find(|&(i, j)| turned(i, j))
        {
            return Ok(format!("{}_{}", self.modalities[i], self.modalities[j]));
        }
        let what = if spec.per == Per::Pair { "pair of modalities" } else { "modality" };
        let hint = nearest(of, have.iter().map(String::as_str)).map(|n| format!("; did you mean {}.{n}?", spec.name));
        Err(Error::usage(format!("there is no {what} {of:?}, there is {}{}", have.join(", "), hint.unwrap_or_default())))
    }

    fn unknown(&self, name: &str) -> Error {
        let names = || self.entries.iter().map(|e| e.spec.name);
        let hint = match nearest(name, names()) {
            Some(n) => format!("did you mean {n}?"),
            None => format!("`couplet train {} --help` lists them", self.model),
        };
        Error::usage(format!("{} has no option {name:?}; {hint}", self.model))
    }

    /// The value of an option of the whole run.
    pub fn get(&self, key: &str) -> Result<Setting<'_>> {
        self.find(key, "")
    }

    /// The value of an option for a modality, by name.
    pub fn of(&self, key: &str, modality: &str) -> Result<Setting<'_>> {
        self.find(key, modality)
    }

    /// The value of an option for a pair of modalities, by their positions, in either order.
    pub fn pair(&self, key: &str, i: usize, j: usize) -> Result<Setting<'_>> {
        let name = |i: usize| self.modalities.get(i).map_or("?", String::as_str);
        self.find(key, &format!("{}_{}", name(i.min(j)), name(i.max(j))))
    }

    /// Whether the model has an option of that name.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| same(e.spec.name, key))
    }

    fn find(&self, key: &str, of: &str) -> Result<Setting<'_>> {
        self.entries.iter().find(|e| same(e.spec.name, key) && e.of == of).map(Setting).ok_or_else(|| {
            Error::Internal(format!("model {} reads its option {key:?} of {of:?}, which its table does not have", self.model))
        })
    }

    /// What came from `source`, as `key = value`, for a line to the user. An option whose parts are equal is named once.
    pub fn from_source(&self, source: Source) -> Vec<String> {
        self.lines(|e| e.source == source)
    }

    /// The lines of `config.toml`: every option, defaults written out.
    pub fn to_toml(&self) -> String {
        self.lines(|_| true).iter().map(|l| format!("{l}\n")).collect()
    }

    fn lines(&self, keep: impl Fn(&Entry) -> bool) -> Vec<String> {
        let mut out = Vec::new();
        for option in self.entries.chunk_by(|a, b| std::ptr::eq(a.spec, b.spec)) {
            let Some(first) = option.first() else { continue };
            let whole = option.iter().all(|e| keep(e) && e.value == first.value);
            for e in option.iter().filter(|e| keep(e)).take(if whole { 1 } else { usize::MAX }) {
                let of = if whole { String::new() } else { format!(".{}", toml_key(&e.of)) };
                out.push(format!("{}{of} = {}", e.spec.name, e.value.to_toml()));
            }
        }
        out
    }

    /// These settings without some options.
    pub fn without(&self, keys: &[&str]) -> Settings {
        let entries = self.entries.iter().filter(|e| !keys.iter().any(|k| same(k, e.spec.name))).cloned().collect();
        Settings { entries, model: self.model, modalities: self.modalities.clone() }
    }

    /// Whether the two settings differ in an option, and which: the first `key = value` of each that differs.
    pub fn difference(&self, other: &Settings) -> Option<(String, String)> {
        let line = |e: &Entry| {
            let dot = if e.of.is_empty() { "" } else { "." };
            (e.spec.name, format!("{}{dot}{} = {}", e.spec.name, e.of, e.value))
        };
        self.entries.iter().zip(&other.entries).map(|(a, b)| (line(a).1, line(b).1)).find(|(a, b)| a != b)
    }
}

impl Setting<'_> {
    /// Whether a user or a recipe chose it.
    pub fn given(&self) -> bool {
        self.0.source > Source::Default
    }

    /// Whether it is to be worked out from the data.
    pub fn is_auto(&self) -> bool {
        self.0.value == Value::Auto
    }

    /// A number.
    pub fn float(&self) -> Result<f64> {
        match self.0.value {
            Value::Float(x) => Ok(x),
            _ => Err(self.mistaken("a number")),
        }
    }

    /// A number, or `default` where it is `auto`.
    pub fn float_or(&self, default: f64) -> Result<f64> {
        if self.is_auto() { Ok(default) } else { self.float() }
    }

    /// A whole number.
    pub fn int(&self) -> Result<i64> {
        match self.0.value {
            Value::Int(x) => Ok(x),
            _ => Err(self.mistaken("a whole number")),
        }
    }

    /// A whole number that counts something.
    pub fn count(&self) -> Result<usize> {
        usize::try_from(self.int()?).map_err(|_| self.mistaken("a count"))
    }

    /// A count, or `default` where it is `auto`.
    pub fn count_or(&self, default: usize) -> Result<usize> {
        if self.is_auto() { Ok(default) } else { self.count() }
    }

    /// A switch.
    pub fn flag(&self) -> Result<bool> {
        match self.0.value {
            Value::Bool(x) => Ok(x),
            _ => Err(self.mistaken("true or false")),
        }
    }

    /// A switch, or `default` where it is `auto`.
    pub fn flag_or(&self, default: bool) -> Result<bool> {
        if self.is_auto() { Ok(default) } else { self.flag() }
    }

    /// A word, or this one for `auto`.
    pub fn word_or<'b>(&'b self, default: &'b str) -> Result<&'b str> {
        if self.is_auto() { Ok(default) } else { self.word() }
    }

    /// A word of a choice.
    pub fn word(&self) -> Result<&str> {
        match &self.0.value {
            Value::Word(x) => Ok(x),
            _ => Err(self.mistaken("a word")),
        }
    }

    /// A list of counts, such as the widths of layers.
    pub fn counts(&self) -> Result<Vec<usize>> {
        match &self.0.value {
            Value::Ints(x) => {
                x.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>().map_err(|_| self.mistaken("a list of counts"))
            }
            _ => Err(self.mistaken("a list of counts")),
        }
    }

    /// A list of numbers.
    pub fn numbers(&self) -> Result<Vec<f64>> {
        match &self.0.value {
            Value::Floats(x) => Ok(x.clone()),
            _ => Err(self.mistaken("a list of numbers")),
        }
    }

    /// A list of words; `auto` is the list of that one word.
    pub fn words(&self) -> Result<Vec<String>> {
        match &self.0.value {
            Value::Words(x) => Ok(x.clone()),
            Value::Auto => Ok(vec!["auto".into()]),
            _ => Err(self.mistaken("a list of words")),
        }
    }

    fn mistaken(&self, read: &str) -> Error {
        Error::Internal(format!("option {} is {}, the model reads {read}", self.0.spec.name, self.0.value))
    }
}

/// `A_B` for every pair, in order.
fn pairs(modalities: &[String]) -> Vec<String> {
    modalities.iter().enumerate().flat_map(|(i, a)| modalities[i + 1..].iter().map(move |b| format!("{a}_{b}"))).collect()
}

fn same(a: &str, b: &str) -> bool {
    a.replace('-', "_") == b.replace('-', "_")
}

fn base_first<T>(items: Vec<T>, specific: impl Fn(&T) -> bool) -> Vec<T> {
    let (specific, mut base): (Vec<T>, Vec<T>) = items.into_iter().partition(specific);
    base.extend(specific);
    base
}

/// `name` as a TOML key, quoted where TOML asks for it.
fn toml_key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_string() } else { toml::Value::from(name).to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::options::Kind;
    use super::*;

    static TABLE: [OptionSpec; 4] = [
        OptionSpec { name: "batch-size", per: Per::Run, kind: Kind::Int { min: 1, max: 1000 }, default: "auto", help: "" },
        OptionSpec { name: "alpha", per: Per::Modality, kind: Kind::Float { min: 0.0, max: 1e9 }, default: "1", help: "" },
        OptionSpec { name: "lambda", per: Per::Pair, kind: Kind::Float { min: 0.0, max: 1e9 }, default: "1", help: "" },
        OptionSpec { name: "hidden", per: Per::Modality, kind: Kind::Ints(1), default: "50,50", help: "" },
    ];

    fn settings() -> Settings {
        Settings::new("toy", &TABLE, &["rna".into(), "a.b".into(), "ephys".into()]).unwrap()
    }

    fn flags(s: &mut Settings, flags: &[&str]) -> Result<()> {
        s.apply_flags(&flags.iter().map(|f| f.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn the_specific_key_wins_whatever_the_order() {
        let mut s = settings();
        flags(&mut s, &["alpha.rna=0.1", "alpha=2", "lambda.ephys_rna=5"]).unwrap();
        assert_eq!(s.of("alpha", "rna").unwrap().float().unwrap(), 0.1);
        assert_eq!(s.of("alpha", "a.b").unwrap().float().unwrap(), 2.0);
        assert_eq!(s.pair("lambda", 2, 0).unwrap().float().unwrap(), 5.0);
        assert_eq!(s.pair("lambda", 0, 1).unwrap().float().unwrap(), 1.0);
        assert!(s.of("alpha", "rna").unwrap().given() && !s.get("batch_size").unwrap().given());
    }

    #[test]
    fn a_stronger_source_wins_over_the_specific_key_of_a_weaker_one() {
        let mut s = settings();
        let recipe: toml::Table = "alpha.rna = 0.1\nbatch_size = 7".parse().unwrap();
        s.apply_table(Path::new("train.toml"), &recipe, Source::Recipe).unwrap();
        assert_eq!(s.from_source(Source::Recipe), ["batch-size = 7", "alpha.rna = 0.1"]);
        flags(&mut s, &["alpha=3"]).unwrap();
        assert_eq!(s.of("alpha", "rna").unwrap().float().unwrap(), 3.0);
    }

    #[test]
    fn what_is_written_out_reads_back_as_the_same_settings() {
        let mut s = settings();
        flags(&mut s, &["alpha.a.b=0.1", "lambda.rna_ephys=0", "hidden.rna=4"]).unwrap();
        s.fill("batch-size", "", Value::Int(100));
        let text = s.to_toml();
        assert!(text.contains("batch-size = 100\n") && text.contains("alpha.\"a.b\" = 0.1\n"), "{text}");
        let mut back = settings();
        back.apply_table(Path::new("config.toml"), &text.parse().unwrap(), Source::File).unwrap();
        assert_eq!(back.difference(&s), None);
        assert!(settings().difference(&s).is_some());
    }

    #[test]
    fn unknown_keys_name_the_nearest_and_exit_with_two() {
        let mut s = settings();
        for (typed, meant) in [
            ("lamda=1", "did you mean lambda?"),
            ("alpha.ran=1", "did you mean alpha.rna?"),
            ("lambda.rna_ephis=1", "did you mean lambda.rna_ephys?"),
            ("batch-size.rna=1", "leave .rna out"),
            ("zzzzzzzz=1", "couplet train toy --help"),
            ("alpha", "KEY=VALUE"),
            ("alpha=x", "a number"),
        ] {
            let e = flags(&mut s, &[typed]).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(meant), "{typed}: {e}");
        }
        let e = s.apply_table(Path::new("my.toml"), &"lamda = 1".parse().unwrap(), Source::File).unwrap_err().to_string();
        assert!(e.starts_with("my.toml, key \"lamda\"") && e.contains("did you mean lambda?"), "{e}");
    }
}
