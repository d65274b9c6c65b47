//! Columns of texts, kept small: a label of a million cells is a million codes, not a million texts.
//!
//! A column begins as codes into the distinct texts; one that has more than `MOST_CLASSES` of them (a number a cell) goes on as its texts
//! one after another.

use std::collections::HashMap;

/// More different texts than this are not looked up any more.
const MOST_CLASSES: usize = 1 << 16;
/// The code of the empty text.
const EMPTY: u32 = u32::MAX;

/// Texts by row; the empty one stands for a missing value.
#[derive(Debug, Clone)]
pub struct Texts(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Coded { classes: Vec<String>, codes: Vec<u32> },
    Plain { bytes: String, ends: Vec<usize> },
}

impl Texts {
    /// Classes and the class of each row, none where it is missing.
    #[track_caller]
    pub fn coded(classes: Vec<String>, rows: impl Iterator<Item = Option<u32>>) -> Texts {
        let code = |c: Option<u32>| {
            assert!(c.is_none_or(|c| (c as usize) < classes.len()), "a code without a class");
            c.unwrap_or(EMPTY)
        };
        let codes = rows.map(code).collect();
        Texts(Kind::Coded { classes, codes })
    }

    /// Rows.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Coded { codes, .. } => codes.len(),
            Kind::Plain { ends, .. } => ends.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text of a row.
    #[track_caller]
    pub fn get(&self, row: usize) -> &str {
        match &self.0 {
            Kind::Coded { classes, codes } => classes.get(codes[row] as usize).map_or("", String::as_str),
            Kind::Plain { bytes, ends } => &bytes[if row == 0 { 0 } else { ends[row - 1] }..ends[row]],
        }
    }

    /// The texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The different texts but the empty one, in the order of their first rows, and each row's.
    pub fn classes(&self) -> (Vec<&str>, Vec<Option<u32>>) {
        let mut found: Vec<&str> = Vec::new();
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let mut code_of = |text| {
            *seen.entry(text).or_insert_with(|| {
                found.push(text);
                found.len() as u32 - 1
            })
        };
        let rows = self.iter().map(|text| (!text.is_empty()).then(|| code_of(text))).collect();
        (found, rows)
    }
}

/// Texts on their way.
#[derive(Debug, Default)]
pub struct TextsBuilder {
    seen: HashMap<String, u32>,
    classes: Vec<String>,
    codes: Vec<u32>,
    plain: Option<(String, Vec<usize>)>,
}

impl TextsBuilder {
    /// The next row.
    pub fn push(&mut self, text: &str) {
        if let Some((bytes, ends)) = &mut self.plain {
            bytes.push_str(text);
            ends.push(bytes.len());
            return;
        }
        let code = match self.seen.get(text) {
            _ if text.is_empty() => EMPTY,
            Some(&code) => code,
            None => {
                self.classes.push(text.to_string());
                self.seen.insert(text.to_string(), self.classes.len() as u32 - 1);
                self.classes.len() as u32 - 1
            }
        };
        self.codes.push(code);
        if self.classes.len() > MOST_CLASSES {
            let coded = Texts(Kind::Coded { classes: std::mem::take(&mut self.classes), codes: std::mem::take(&mut self.codes) });
            let mut plain = (String::new(), Vec::with_capacity(2 * coded.len()));
            for text in coded.iter() {
                plain.0.push_str(text);
                plain.1.push(plain.0.len());
            }
            self.seen = HashMap::new();
            self.plain = Some(plain);
        }
    }

    /// All of them.
    pub fn finish(self) -> Texts {
        Texts(match self.plain {
            Some((bytes, ends)) => Kind::Plain { bytes, ends },
            None => Kind::Coded { classes: self.classes, codes: self.codes },
        })
    }
}

impl<S: AsRef<str>> FromIterator<S> for Texts {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Texts {
        let mut builder = TextsBuilder::default();
        texts.into_iter().for_each(|text| builder.push(text.as_ref()));
        builder.finish()
    }
}

impl From<Vec<String>> for Texts {
    fn from(texts: Vec<String>) -> Texts {
        texts.into_iter().collect()
    }
}

impl PartialEq for Texts {
    fn eq(&self, other: &Texts) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_texts_come_back_in_order() {
        for different in [3, MOST_CLASSES, MOST_CLASSES + 1, MOST_CLASSES + 500] {
            let wanted: Vec<String> =
                (0..different + 10).map(|i| if i % 7 == 3 { String::new() } else { format!("t{}", i % different) }).collect();
            let texts = Texts::from(wanted.clone());
            assert!(texts.iter().eq(wanted.iter()) && texts.len() == wanted.len());
        }
    }

    #[test]
    fn classes_are_in_order_of_appearance_and_empty_is_none() {
        let texts: Texts = ["b", "", "a", "b"].into_iter().collect();
        assert_eq!(texts.classes(), (vec!["b", "a"], vec![Some(0), None, Some(1), Some(0)]));
        assert_eq!(Texts::coded(vec!["x".into(), "y".into()], [Some(1), None].into_iter()), ["y", ""].into_iter().collect());
    }
}
