//! Walks a TOML document and collects every problem with its place, instead of stopping at the first.
//!
//! serde stops at the first error and knows no line of a value that is well-formed but wrong; an installer
//! wants the whole list at once. A [`Section`] is one table: whatever was not asked of it when it is finished
//! is an unknown key.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units;

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: usize,
    /// Path of the key: `camera[0].rule[1].dwell`. Empty for a mistake in the TOML itself.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// The text and what was found wrong with it so far.
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    /// Reads a text, or says all that is wrong with it in the order of the text.
    pub(super) fn read<T>(
        text: &str,
        read: impl FnOnce(Section<'_>) -> Option<T>,
    ) -> Result<T, Vec<Problem>> {
        let document = Document { text, problems: RefCell::default() };
        let table = document.parse();
        if document.has_problems() {
            return Err(document.into_problems()); // what comes after a mistake in the TOML itself is guesswork
        }
        let read = read(Section::root(&document, &table));
        let problems = document.into_problems();
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            _ => Err(problems),
        }
    }

    /// The top table, as far as it could be read. Mistakes in the TOML itself are problems like any other.
    fn parse(&self) -> Spanned<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            self.report(at, "", error.message().to_owned());
        }
        table
    }

    fn report(&self, at: Range<usize>, key: &str, message: String) {
        let line = self.text[..at.start.min(self.text.len())].matches('\n').count() + 1;
        self.problems.borrow_mut().push(Problem { line, key: key.to_owned(), message });
    }

    fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// All problems in the order of the file.
    fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

/// One table of the document.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    path: String,
    table: &'a DeTable<'a>,
    at: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    fn root(document: &'a Document<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(document, String::new(), table.get_ref(), 0..0)
    }

    fn new(document: &'a Document<'a>, path: String, table: &'a DeTable<'a>, at: Range<usize>) -> Self {
        Self { document, path, table, at, asked: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Reports something about a key that is there but does not fit the rest, or about this table.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        let value = self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value.span());
        self.document.report(value.unwrap_or(self.at.clone()), &self.path_of(key), message.into());
    }

    /// The value of a key that may be absent. `None` too where it is wrong, which is then reported.
    pub(super) fn optional<T: Value>(&self, key: &'static str) -> Option<T> {
        let value = self.find(key)?;
        match T::read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.document.report(value.span(), &self.path_of(key), message);
                None
            }
        }
    }

    /// The value of a key that must be there.
    pub(super) fn required<T: Value>(&self, key: &'static str) -> Option<T> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            self.document.report(
                self.at.clone(),
                &self.path_of(key),
                format!("missing; expected {}", T::EXPECTED),
            );
        }
        self.optional(key)
    }

    /// The value of a key, or what stands for it where it is absent.
    pub(super) fn or<T: Value>(&self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// Reports a key that may not be here.
    pub(super) fn refuse(&self, key: &'static str, message: &str) {
        self.known(key);
        if self.has(key) {
            self.problem(key, message);
        }
    }

    /// Whether nothing stands here.
    pub(super) fn is_empty(&self) -> bool {
        self.table.iter().next().is_none()
    }

    /// A key that may be here, though nobody asks for it now.
    pub(super) fn known(&self, key: &'static str) {
        self.asked.borrow_mut().push(key);
    }

    /// Whether the key is not there, or holds an empty array.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let value = self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value);
        value.is_none_or(|value| value.get_ref().as_array().is_some_and(|items| items.is_empty()))
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// A table that may be absent.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let value = self.find(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(self.document, self.path_of(key), table, value.span())),
            other => {
                let message = format!("expected a table [{}], found {}", self.path_of(key), describe(other));
                self.document.report(value.span(), &self.path_of(key), message);
                None
            }
        }
    }

    /// What a table that may be absent says; the outer `None` where it could not be read.
    pub(super) fn read_section<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(Section<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.section(key) {
            Some(section) => read(section).map(Some),
            None => Some(None),
        }
    }

    /// A table that must be there.
    pub(super) fn required_section(&self, key: &'static str) -> Option<Section<'a>> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            let path = self.path_of(key);
            self.document.report(self.at.clone(), &path, format!("missing; expected a table [{path}]"));
        }
        self.section(key)
    }

    /// One table, or several as an array; an absent one is none.
    pub(super) fn section_or_sections(&self, key: &'static str) -> Vec<Section<'a>> {
        match self.find(key).map(Spanned::get_ref) {
            Some(DeValue::Table(_)) => self.section(key).into_iter().collect(),
            _ => self.sections(key),
        }
    }

    /// An array of tables; an absent one is empty.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let path = self.path_of(key);
        let items = match value.get_ref() {
            DeValue::Array(items) => items,
            other => {
                let message = format!("expected tables [[{path}]], found {}", describe(other));
                self.document.report(value.span(), &path, message);
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Self::new(self.document, path, table, item.span())),
                other => {
                    let message = format!("expected a table, found {}", describe(other));
                    self.document.report(item.span(), &path, message);
                }
            }
        }
        sections
    }

    /// Reports every key that nobody asked for, with the nearest that somebody did.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table.iter() {
            let key = name.get_ref().as_ref();
            if asked.contains(&key) {
                continue;
            }
            let near = asked.iter().min_by_key(|candidate| distance(key, candidate));
            let hint = match near {
                Some(near) if distance(key, near) <= 2 => format!("unknown key; did you mean {near:?}?"),
                _ => {
                    let mut known = asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("unknown key; known here: {}", known.join(", "))
                }
            };
            self.document.report(name.span(), &self.path_of(key), hint);
        }
    }
}

/// Levenshtein's edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// Something that a key can hold.
pub(super) trait Value: Sized {
    /// What is expected, for messages: "a duration such as \"2s\"".
    const EXPECTED: &'static str;

    /// The value, or what is wrong with it.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;

    /// The message for a value of another type.
    fn unexpected(value: &DeValue<'_>) -> String {
        format!("expected {}, found {}", Self::EXPECTED, describe(value))
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("") => Err("is empty: expected a text; leave the key out where it may be missing".into()),
            Some(text) => Ok(text.to_owned()),
            None => Err(Self::unexpected(value)),
        }
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        String::read(value).map(Self::from).map_err(|_| Self::unexpected(value))
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| Self::unexpected(value))
    }
}

impl Value for u16 {
    const EXPECTED: &'static str = "a whole number from 0 to 65535";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let number = value.as_integer().and_then(|n| Self::from_str_radix(n.as_str(), n.radix()).ok());
        number.ok_or_else(|| Self::unexpected(value))
    }
}

impl Value for f32 {
    const EXPECTED: &'static str = "a number";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            other => return Err(Self::unexpected(other)),
        };
        text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or_else(|| Self::unexpected(value))
    }
}

impl Value for Duration {
    const EXPECTED: &'static str =
        "a duration with its unit, such as \"200ms\", \"2s\", \"5min\", \"12h\" or \"30d\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().and_then(units::duration).ok_or_else(|| Self::unexpected(value))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

impl Value for Bytes {
    const EXPECTED: &'static str = "a size with its unit, such as \"64KB\", \"512MB\" or \"2GB\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().and_then(units::bytes).map(Self).ok_or_else(|| Self::unexpected(value))
    }
}

/// A duration, or none for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WithinOrNever(pub(super) Option<Duration>);

impl Value for WithinOrNever {
    const EXPECTED: &'static str = "a duration with its unit, such as \"10min\", or \"never\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("never") => Ok(Self(None)),
            text => {
                text.and_then(units::duration).map(|d| Self(Some(d))).ok_or_else(|| Self::unexpected(value))
            }
        }
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:9464\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Self::unexpected(value))
    }
}

impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = "an array";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let items = value.as_array().ok_or_else(|| Self::unexpected(value))?;
        items.iter().map(|item| T::read(item.get_ref())).collect()
    }
}

/// Reads any type that parses from a text and whose error says what would be right.
macro_rules! from_text {
    ($type:ty, $expected:literal) => {
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let text = value.as_str().ok_or_else(|| Self::unexpected(value))?;
                text.parse().map_err(|error| format!("{error}"))
            }
        }
    };
}

from_text!(sharp_eyes_protocol::class::ObjectClass, "a class such as \"person\"");
from_text!(sharp_eyes_protocol::level::Severity, "\"minor\", \"major\" or \"critical\"");
from_text!(sharp_eyes_protocol::topic::Name, "a name of 1 to 16 of a-z, 0-9 and \"-\"");
from_text!(crate::cores::Cores, "\"all\" or \"big\"");
from_text!(sharp_eyes_vision::Provider, "an execution provider such as \"cpu\"");
from_text!(sharp_eyes_vision::schedule::Dates, "dates such as \"2026-10-01..2026-10-07\" or \"2027-01-01\"");
from_text!(sharp_eyes_vision::schedule::Schedule, "\"always\" or times such as \"daily 19:00-07:00\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_near() {
        assert_eq!(distance("dwel", "dwell"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("severity", "severity"), 0);
    }
}
