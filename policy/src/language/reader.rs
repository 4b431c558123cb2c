//! Reads TOML tables with their positions: each wrong type, missing and unknown key is
//! one fault, and reading goes on.

use std::{collections::BTreeSet, ops::Range};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Faults;
use crate::spelling::did_you_mean;

/// A key that a later version will know, and what to write until then.
pub(super) type Later = (&'static str, &'static str);

/// What a table may contain.
pub(super) struct Keys {
    /// Keys that are read.
    pub(super) known: &'static [&'static str],
    /// Keys that are refused by name.
    pub(super) later: &'static [Later],
}

/// One table of the file.
pub(super) struct Table<'a, 'i> {
    /// What it is, for messages: `rule`, `signed_by`.
    what: &'static str,
    span: Range<usize>,
    fields: &'a DeTable<'i>,
}

/// A value with its place in the file.
pub(super) struct At<T> {
    pub(super) span: Range<usize>,
    pub(super) value: T,
}

impl<'a, 'i> Table<'a, 'i> {
    /// The table in `value`, each of its keys checked against `keys`.
    pub(super) fn open(
        what: &'static str,
        value: &'a Spanned<DeValue<'i>>,
        keys: &Keys,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let Some(fields) = value.get_ref().as_table() else {
            faults.add(value.span(), wrong_type(what, "a table", value.get_ref()));
            return None;
        };
        Some(Self::of(what, value.span(), fields, keys, faults))
    }

    /// The table under `name`, which stands once in this one.
    pub(super) fn section(
        &self,
        name: &'static str,
        keys: &Keys,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        Self::open(name, self.value(name)?, keys, faults)
    }

    /// As [`Table::open`], for the file as a whole.
    pub(super) fn of(
        what: &'static str,
        span: Range<usize>,
        fields: &'a DeTable<'i>,
        keys: &Keys,
        faults: &mut Faults<'_>,
    ) -> Self {
        for (key, _) in fields {
            let name: &str = key.get_ref();
            if keys.known.contains(&name) {
                continue;
            }
            if let Some((_, instead)) = keys.later.iter().find(|(later, _)| *later == name) {
                let message = format!("`{name}` is known but not supported yet: {instead}");
                faults.unsupported(key.span(), message);
                continue;
            }
            let all = keys
                .known
                .iter()
                .chain(keys.later.iter().map(|(later, _)| later));
            let hint = did_you_mean(name, all.copied());
            faults.add(key.span(), format!("unknown key {name:?} in {what}{hint}"));
        }
        Self { what, span, fields }
    }

    /// Where the table starts.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Those of `keys` that the table leaves out.
    pub(super) fn lacking(&self, keys: &[&'static str]) -> BTreeSet<&'static str> {
        let absent = |key: &&'static str| self.value(key).is_none();
        keys.iter().copied().filter(absent).collect()
    }

    /// The value of `key`, of any type.
    pub(super) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.fields.get(key)
    }

    /// The string at `key`.
    pub(super) fn string(&self, key: &str, faults: &mut Faults<'_>) -> Option<At<&'a str>> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At {
                span: value.span(),
                value: text,
            }),
            None => {
                faults.add(value.span(), wrong_type(key, "a string", value.get_ref()));
                None
            }
        }
    }

    /// Is the boolean at `key` there and true?
    pub(super) fn flag(&self, key: &str, faults: &mut Faults<'_>) -> bool {
        let Some(value) = self.value(key) else {
            return false;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            faults.add(
                value.span(),
                wrong_type(key, "true or false", value.get_ref()),
            );
            false
        })
    }

    /// The string at `key`; its absence is a fault.
    pub(super) fn required_string(
        &self,
        key: &str,
        faults: &mut Faults<'_>,
    ) -> Option<At<&'a str>> {
        self.require(key, faults);
        self.string(key, faults)
    }

    /// A fault where `key` is missing.
    pub(super) fn require(&self, key: &str, faults: &mut Faults<'_>) {
        if self.value(key).is_none() {
            faults.add(self.span(), format!("{} lacks `{key}`", self.what));
        }
    }

    /// The integer at `key`, within `range`.
    pub(super) fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
        faults: &mut Faults<'_>,
    ) -> Option<At<i64>> {
        let value = self.value(key)?;
        integer(key, value, range, faults)
    }

    /// The strings in the array at `key`.
    pub(super) fn strings(
        &self,
        key: &str,
        faults: &mut Faults<'_>,
    ) -> Option<At<Vec<At<&'a str>>>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let message = wrong_type(key, "an array of strings", value.get_ref());
            faults.add(value.span(), message);
            return None;
        };
        let mut strings = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => strings.push(At {
                    span: item.span(),
                    value: text,
                }),
                None => {
                    let message = wrong_type(key, "an array of strings only", item.get_ref());
                    faults.add(item.span(), message);
                }
            }
        }
        (strings.len() == array.len()).then(|| At {
            span: value.span(),
            value: strings,
        })
    }

    /// The elements of the array of tables at `key` (`[[key]]`).
    pub(super) fn tables(
        &self,
        key: &str,
        faults: &mut Faults<'_>,
    ) -> Vec<&'a Spanned<DeValue<'i>>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("want `[[{key}]]`, got {}", name_of(value.get_ref()));
            faults.add(value.span(), message);
            return Vec::new();
        };
        array.iter().collect()
    }
}

/// The integer in `value`, within `range`.
pub(super) fn integer(
    what: &str,
    value: &Spanned<DeValue<'_>>,
    range: std::ops::RangeInclusive<i64>,
    faults: &mut Faults<'_>,
) -> Option<At<i64>> {
    let Some(integer) = value.get_ref().as_integer() else {
        faults.add(
            value.span(),
            wrong_type(what, "an integer", value.get_ref()),
        );
        return None;
    };
    match i64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if range.contains(&number) => Some(At {
            span: value.span(),
            value: number,
        }),
        _ => {
            let message = format!(
                "`{what}` must be from {} to {}; got {integer}",
                range.start(),
                range.end(),
            );
            faults.add(value.span(), message);
            None
        }
    }
}

/// `` `scope` must be a string; got an integer ``.
pub(super) fn wrong_type(what: &str, want: &str, got: &DeValue<'_>) -> String {
    format!("`{what}` must be {want}; got {}", name_of(got))
}

fn name_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
