//! Tries again and again while the gate goes, until a file is there.

use std::{collections::BTreeSet, path::Path};

use libbpf_rs::{MapCore as _, MapHandle};

use super::{check, evil, own::next_id};

const MAP_GET_NEXT_ID: u32 = 12;
/// Names of maps that decide.
const VITAL: [&str; 5] = ["guards", "own", "set", "bpfseal_set", "marks"];
/// Ids beyond the highest that is there now: maps are made meanwhile.
const BEYOND: u32 = 16;

/// Loads unsigned programs and opens the gate's maps by their ids.
pub fn run(file: &str) -> bool {
    let highest = ids().last().copied().unwrap_or(0);
    let (mut tried, mut loaded) = (0u64, 0u64);
    let mut opened = BTreeSet::new();
    println!("it hammers");
    while !Path::new(file).exists() {
        tried += 1;
        loaded += u64::from(evil().load().is_ok());
        for id in 1..=highest + BEYOND {
            let Ok(map) = MapHandle::from_map_id(id) else {
                continue;
            };
            let name = map.name().to_string_lossy().into_owned();
            if VITAL.contains(&name.as_str()) {
                opened.insert(name);
            }
        }
    }
    let what = "not for a moment was anything let in";
    let said = format!("{tried} times: {loaded} loaded, {opened:?} opened");
    match loaded == 0 && opened.is_empty() && tried > 0 {
        true => check(what, Ok(said)),
        false => check(what, Err(said)),
    }
}

fn ids() -> Vec<u32> {
    let next = |id: &u32| next_id(MAP_GET_NEXT_ID, *id);
    std::iter::successors(Some(0), next).skip(1).collect()
}
