//! What conditions may look at, as CEL values.

use std::{collections::HashMap, sync::Arc};

use bundle::inventory::Inventory;
use cel::{Value, objects::Key};
use serde_json::Value as Json;

/// The inventory of a bundle, and the predicate of one of its attestations.
#[derive(Clone, Debug)]
pub struct Facts {
    inventory: Option<Value>,
    predicate: Option<Value>,
    count: usize,
}

/// More values than a condition looks at: how many are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge(pub usize);

/// Most numbers, strings, lists and tables together: several large SBOMs.
const MOST_VALUES: usize = 500_000;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there are more than {} values to look at", self.0)
    }
}

impl Facts {
    /// Only what an inventory says: its document, with the programs and maps of all objects
    /// as `programs` and `maps` beside `objects`.
    ///
    /// # Errors
    /// When there is too much of it.
    pub fn of(inventory: &Inventory) -> Result<Self, TooLarge> {
        let json = serde_json::to_value(inventory).unwrap_or_default();
        Self::of_json(json)
    }

    /// Nothing: for what has no inventory.
    pub const fn none() -> Self {
        Self {
            inventory: None,
            predicate: None,
            count: 0,
        }
    }

    /// The same with this predicate.
    ///
    /// # Errors
    /// When there is too much of it.
    pub fn with_predicate(&self, predicate: Json) -> Result<Self, TooLarge> {
        let mut count = self.count;
        let predicate = value(predicate, &mut count)?;
        Ok(Self {
            inventory: self.inventory.clone(),
            predicate: Some(predicate),
            count,
        })
    }

    pub(super) fn of_json(mut inventory: Json) -> Result<Self, TooLarge> {
        for key in ["programs", "maps"] {
            let objects = inventory["objects"].as_array().into_iter().flatten();
            let all: Vec<Json> = objects
                .filter_map(|object| object[key].as_array())
                .flatten()
                .cloned()
                .collect();
            inventory[key] = Json::Array(all);
        }
        let mut count = 0;
        let inventory = value(inventory, &mut count)?;
        Ok(Self {
            inventory: Some(inventory),
            predicate: None,
            count,
        })
    }

    pub(super) fn value(&self, name: &str) -> Option<Value> {
        match name {
            "inventory" => self.inventory.clone(),
            "predicate" => self.predicate.clone(),
            _ => None,
        }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }
}

fn value(json: Json, count: &mut usize) -> Result<Value, TooLarge> {
    *count += 1;
    if *count > MOST_VALUES {
        return Err(TooLarge(MOST_VALUES));
    }
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(bool),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text)),
        Json::Array(items) => {
            let items: Result<Vec<Value>, TooLarge> =
                items.into_iter().map(|item| value(item, count)).collect();
            Value::List(Arc::new(items?))
        }
        Json::Object(fields) => {
            let mut map: HashMap<Key, Value> = HashMap::with_capacity(fields.len());
            for (name, field) in fields {
                map.insert(Key::String(Arc::new(name)), value(field, count)?);
            }
            Value::Map(map.into())
        }
    })
}
