//! What a model lets its user choose: one row an option, in a static table that the model publishes.
//!
//! A row is all there is to an option: its name, what it takes, its default as a user would type it, and its help. From
//! the rows come the checks of `--set key=value` and of TOML files, the table that `couplet train MODEL --help` prints, and
//! `config.toml`. [`super::settings::Settings`] holds the values of one run.

use crate::error::{Error, Result, nearest};

/// What an option is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// The run: `lr`.
    Run,
    /// Each modality, or one: `alpha`, `alpha.NAME`.
    Modality,
    /// Each pair of modalities, or one: `lambda`, `lambda.A_B`.
    Pair,
}

/// What an option takes. Bounds are allowed values themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number.
    Float {
        /// The smallest allowed.
        min: f64,
        /// The largest allowed.
        max: f64,
    },
    /// A whole number.
    Int {
        /// The smallest allowed.
        min: i64,
        /// The largest allowed.
        max: i64,
    },
    /// `true` or `false`.
    Bool,
    /// One word of these.
    Choice(&'static [&'static str]),
    /// A list of whole numbers, each at least this.
    Ints(i64),
    /// A list of numbers, each at least this.
    Floats(f64),
    /// A list of words of these.
    Words(&'static [&'static str]),
    /// Anything: a name that the data give.
    Name,
    /// A list of such names.
    Names,
}

/// A row of a model's option table.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// As in `--set NAME=...`; `-` and `_` are the same to whoever types it.
    pub name: &'static str,
    /// Whether modalities or pairs of them may differ.
    pub per: Per,
    /// What it takes.
    pub kind: Kind,
    /// As a user would type it. `auto`: worked out from the data, as the help says.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

/// A row, in one line.
pub(super) const fn option(name: &'static str, per: Per, kind: Kind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, per, kind, default, help }
}

/// A number that is not negative.
pub(super) const POSITIVE: Kind = Kind::Float { min: 0.0, max: f64::MAX };

/// A typed value of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// To be worked out from the data.
    Auto,
    /// Of [`Kind::Float`].
    Float(f64),
    /// Of [`Kind::Int`].
    Int(i64),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Choice`] and [`Kind::Name`].
    Word(String),
    /// Of [`Kind::Ints`].
    Ints(Vec<i64>),
    /// Of [`Kind::Floats`].
    Floats(Vec<f64>),
    /// Of [`Kind::Words`] and [`Kind::Names`].
    Words(Vec<String>),
}

impl OptionSpec {
    /// Whether `auto` is a value of this option.
    pub fn takes_auto(&self) -> bool {
        self.default == "auto"
    }

    /// What the option takes, in words.
    pub fn takes(&self) -> String {
        let auto = if self.takes_auto() { "auto or " } else { "" };
        let bound = |min: f64, max: f64| match (min > f64::MIN, max < f64::MAX) {
            (true, true) => format!(" from {min} to {max}"),
            (true, false) => format!(" from {min}"),
            (false, true) => format!(" up to {max}"),
            (false, false) => String::new(),
        };
        let words = |w: &[&str]| w.iter().filter(|w| **w != "auto").copied().collect::<Vec<_>>().join(", ");
        match self.kind {
            Kind::Float { min, max } => format!("{auto}a number{}", bound(min, max)),
            Kind::Int { min, max } => {
                let max = if max == i64::MAX { f64::MAX } else { max as f64 };
                format!("{auto}a whole number{}", bound(min as f64, max))
            }
            Kind::Bool => format!("{auto}true or false"),
            Kind::Choice(c) => format!("{auto}one of {}", words(c)),
            Kind::Ints(min) => format!("{auto}a list of whole numbers{}", bound(min as f64, f64::MAX)),
            Kind::Floats(min) => format!("{auto}a list of numbers{}", bound(min, f64::MAX)),
            Kind::Words(c) => format!("{auto}a list of {}", words(c)),
            Kind::Name => format!("{auto}a name"),
            Kind::Names => format!("{auto}a list of names"),
        }
    }

    /// The value that `text` stands for, as typed after `--set key=`. Lists are separated by commas, brackets are optional.
    pub fn parse(&self, text: &str) -> Result<Value> {
        let text = text.trim();
        if self.takes_auto() && text == "auto" {
            return Ok(Value::Auto);
        }
        let items = || {
            let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
            inner.split(',').map(|t| t.trim().trim_matches('"').to_string()).filter(|t| !t.is_empty())
        };
        let value = match self.kind {
            Kind::Float { .. } => text.parse().map(Value::Float).ok(),
            Kind::Int { .. } => text.parse().map(Value::Int).ok(),
            Kind::Bool => match text {
                "true" | "on" | "yes" => Some(Value::Bool(true)),
                "false" | "off" | "no" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Choice(_) | Kind::Name => Some(Value::Word(text.to_string())),
            Kind::Ints(_) => items().map(|t| t.parse().ok()).collect::<Option<Vec<i64>>>().map(Value::Ints),
            Kind::Floats(_) => items().map(|t| t.parse().ok()).collect::<Option<Vec<f64>>>().map(Value::Floats),
            Kind::Words(_) | Kind::Names => Some(Value::Words(items().collect())),
        };
        self.check(value.ok_or_else(|| self.refuse(text))?)
    }

    /// The value of a TOML entry.
    pub fn from_toml(&self, value: &toml::Value) -> Result<Value> {
        let whole = |v: &toml::Value| v.as_integer();
        let value = match (self.kind, value) {
            (_, toml::Value::String(s)) => return self.parse(s),
            (Kind::Float { .. }, toml::Value::Float(x)) => Value::Float(*x),
            (Kind::Float { .. }, toml::Value::Integer(x)) => Value::Float(*x as f64),
            (Kind::Int { .. }, toml::Value::Integer(x)) => Value::Int(*x),
            (Kind::Bool, toml::Value::Boolean(x)) => Value::Bool(*x),
            (Kind::Ints(_), toml::Value::Integer(x)) => Value::Ints(vec![*x]),
            (Kind::Ints(_), toml::Value::Array(a)) => {
                Value::Ints(a.iter().map(whole).collect::<Option<_>>().ok_or_else(|| self.refuse(&value.to_string()))?)
            }
            (Kind::Floats(_), toml::Value::Array(a)) => {
                let number = |v: &toml::Value| v.as_float().or(v.as_integer().map(|x| x as f64));
                Value::Floats(a.iter().map(number).collect::<Option<_>>().ok_or_else(|| self.refuse(&value.to_string()))?)
            }
            (Kind::Words(_) | Kind::Names, toml::Value::Array(a)) => {
                let words = a.iter().map(|v| v.as_str().map(str::to_string)).collect::<Option<Vec<_>>>();
                match words.ok_or_else(|| self.refuse(&value.to_string()))? {
                    w if self.takes_auto() && w == ["auto"] => Value::Auto,
                    w => Value::Words(w),
                }
            }
            _ => return Err(self.refuse(&value.to_string())),
        };
        self.check(value)
    }

    fn check(&self, value: Value) -> Result<Value> {
        let good = match (&value, self.kind) {
            (Value::Float(x), Kind::Float { min, max }) => (min..=max).contains(x),
            (Value::Int(x), Kind::Int { min, max }) => (min..=max).contains(x),
            (Value::Word(w), Kind::Choice(words)) => return self.known(w, words).map(|_| value),
            (Value::Ints(list), Kind::Ints(min)) => list.iter().all(|x| *x >= min),
            (Value::Floats(list), Kind::Floats(min)) => list.iter().all(|x| *x >= min && x.is_finite()),
            (Value::Words(list), Kind::Words(words)) => {
                for w in list {
                    self.known(w, words)?;
                }
                !list.is_empty()
            }
            (Value::Word(name), Kind::Name) => !name.is_empty(),
            (Value::Bool(_), Kind::Bool) | (Value::Words(_), Kind::Names) | (Value::Auto, _) => true,
            _ => false,
        };
        if good { Ok(value) } else { Err(self.refuse(&value.to_string())) }
    }

    fn known(&self, word: &str, words: &[&str]) -> Result<()> {
        if words.contains(&word) {
            return Ok(());
        }
        let hint = nearest(word, words.iter().copied()).map(|w| format!("; did you mean {w}?")).unwrap_or_default();
        Err(Error::usage(format!("{} = {word}: wanted is {}{hint}", self.name, self.takes())))
    }

    fn refuse(&self, text: &str) -> Error {
        Error::usage(format!("{} = {text}: wanted is {}", self.name, self.takes()))
    }
}

impl Value {
    /// For `config.toml`.
    pub fn to_toml(&self) -> toml::Value {
        match self {
            Value::Auto => "auto".into(),
            Value::Float(x) => (*x).into(),
            Value::Int(x) => (*x).into(),
            Value::Bool(x) => (*x).into(),
            Value::Word(x) => x.as_str().into(),
            Value::Ints(x) => x.clone().into(),
            Value::Floats(x) => x.clone().into(),
            Value::Words(x) => x.clone().into(),
        }
    }
}

/// As it may be typed after `--set key=`.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Auto => f.write_str("auto"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Int(x) => write!(f, "{x}"),
            Value::Bool(x) => write!(f, "{x}"),
            Value::Word(x) => f.write_str(x),
            Value::Ints(x) => f.write_str(&x.iter().map(i64::to_string).collect::<Vec<_>>().join(",")),
            Value::Floats(x) => f.write_str(&x.iter().map(f64::to_string).collect::<Vec<_>>().join(",")),
            Value::Words(x) => f.write_str(&x.join(",")),
        }
    }
}

/// The option table as `couplet train MODEL --help` prints it.
pub fn help_table(model: &str, specs: &[OptionSpec]) -> String {
    let rows: Vec<(String, &OptionSpec)> = specs
        .iter()
        .map(|s| {
            let suffix = match s.per {
                Per::Run => "",
                Per::Modality => "[.NAME]",
                Per::Pair => "[.A_B]",
            };
            (format!("{}{suffix}", s.name), s)
        })
        .collect();
    let width = rows.iter().map(|(n, s)| n.len() + 3 + s.default.len()).max().unwrap_or(0);
    let mut out = format!("Options of {model}, for --set KEY=VALUE and --config FILE.toml (KEY = default):\n");
    for (name, s) in rows {
        out.push_str(&format!("  {:width$}  {}\n  {:width$}  takes {}\n", format!("{name} = {}", s.default), s.help, "", s.takes()));
    }
    out
}

/// How many of its features a modality's model is given.
pub const TOP_GENES: OptionSpec = OptionSpec {
    name: "n_top_genes",
    per: Per::Modality,
    kind: Kind::Int { min: 0, max: 1 << 24 },
    default: "0",
    help: "features that the model is given: those that vary most over the training cells; 0: all",
};

/// How those are chosen.
pub const TOP_GENES_BY: OptionSpec = OptionSpec {
    name: "top_genes_by",
    per: Per::Modality,
    kind: Kind::Choice(&["auto", "seurat-v3", "dispersion", "variance"]),
    default: "auto",
    help: "how they are chosen: by the variance of counts over what their mean lets expect, by the dispersion of counts per 10,000 among \
           features of similar mean, by plain variance after preprocessing; auto: seurat-v3 for counts, else variance",
};

/// How many cells must show a feature that a modality's model is given.
pub const MIN_DETECTED: OptionSpec = OptionSpec {
    name: "min_detected",
    per: Per::Modality,
    kind: Kind::Float { min: 0.0, max: 1.0 },
    default: "0",
    help: "features detected in this share of the training cells or less are left out, before n_top_genes; 0: none",
};

/// How many cells must show a feature that a modality's model is given, as a number.
pub const MIN_CELLS: OptionSpec = OptionSpec {
    name: "min_cells",
    per: Per::Modality,
    kind: Kind::Int { min: 0, max: 1 << 31 },
    default: "0",
    help: "features detected in fewer training cells are left out, before n_top_genes; 0: none",
};

/// How many features a cell must show to be trained on.
pub const MIN_FEATURES: OptionSpec = OptionSpec {
    name: "min_features",
    per: Per::Modality,
    kind: Kind::Int { min: 0, max: 1 << 31 },
    default: "0",
    help: "training cells that show fewer of the features left are left out, in turn with min_cells, twice; 0: none",
};

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: OptionSpec =
        OptionSpec { name: "dropout", per: Per::Run, kind: Kind::Float { min: 0.0, max: 0.9 }, default: "auto", help: "" };
    const STEPS: OptionSpec =
        OptionSpec { name: "preprocess", per: Per::Modality, kind: Kind::Words(&["auto", "none", "log1p"]), default: "auto", help: "" };

    #[test]
    fn values_are_typed_and_bounded() {
        assert_eq!(SPEC.parse("0.5").unwrap(), Value::Float(0.5));
        assert_eq!(SPEC.parse("auto").unwrap(), Value::Auto);
        for bad in ["1", "-0.1", "NaN", "x", "", "0,5"] {
            let e = SPEC.parse(bad).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains("auto or a number from 0 to 0.9"), "{e}");
        }
        let ints = OptionSpec { name: "hidden", per: Per::Run, kind: Kind::Ints(1), default: "50", help: "" };
        assert_eq!(ints.parse("[50, 40]").unwrap(), Value::Ints(vec![50, 40]));
        assert_eq!(ints.parse("50,40").unwrap(), Value::Ints(vec![50, 40]));
        assert!(ints.parse("50,0").is_err());
    }

    #[test]
    fn an_unknown_word_names_the_nearest() {
        let e = STEPS.parse("log1").unwrap_err().to_string();
        assert!(e.contains("did you mean log1p?"), "{e}");
        assert_eq!(STEPS.parse("log1p,none").unwrap(), Value::Words(vec!["log1p".into(), "none".into()]));
    }

    #[test]
    fn toml_and_text_give_the_same_value_and_come_back() {
        let names = OptionSpec { name: "conditions", per: Per::Run, kind: Kind::Names, default: "auto", help: "" };
        for (spec, text) in
            [(&SPEC, "0.25"), (&SPEC, "auto"), (&STEPS, "log1p,none"), (&STEPS, "auto"), (&names, "CD4,lamin B"), (&names, "")]
        {
            let value = spec.parse(text).unwrap();
            assert_eq!(spec.from_toml(&value.to_toml()).unwrap(), value);
            assert_eq!(spec.parse(&value.to_string()).unwrap(), value);
        }
        assert!(SPEC.from_toml(&toml::Value::Boolean(true)).is_err());
    }
}
