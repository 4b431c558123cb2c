//! Every program in the kernel, and how it came in.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, query::ProgInfoIter};

use super::{
    hooks,
    shared::{Fields, Origin, PLACE_BYTES, Reader, Record},
};
use crate::gate::{Class, Loaded};

/// What the kernel side knows of loaded programs.
pub struct Known<'a> {
    pub records: &'a MapHandle,
    pub places: &'a MapHandle,
    /// Programs of the gate's that are there: whoever lists all has come by them.
    pub attached: Vec<u32>,
}

/// The highest id of a program; the kernel counts upwards.
pub fn last_program() -> u32 {
    ProgInfoIter::default()
        .map(|info| info.id)
        .max()
        .unwrap_or(0)
}

/// Lists programs with their records, if there are any yet. `is_own` knows the gate's own.
pub fn list(
    known: Option<&Known<'_>>,
    is_own: &dyn Fn(u32) -> bool,
    origins: &HashMap<u32, Origin>,
    armed_at: Duration,
) -> io::Result<Vec<Loaded>> {
    let records = known
        .map(|known| by_id(known.records))
        .transpose()?
        .unwrap_or_default();
    let mut programs: Vec<_> = ProgInfoIter::default()
        .map(|info| {
            let record = records.get(&info.id);
            let origin = record.and_then(|record| origins.get(&record.image));
            let class = match record {
                Some(record) => record.class,
                None => (info.load_time < armed_at).then_some(Class::Before),
            };
            let own = is_own(info.id);
            Loaded {
                id: info.id,
                prog_type: info.ty as u32,
                name: info.name.to_string_lossy().into_owned(),
                tag: hex::encode(info.tag.0),
                uid: info.created_by_uid,
                at: info.load_time,
                own,
                class,
                bundle: origin.and_then(|origin| origin.bundle),
                admitted: origin.map(|origin| origin.name.clone()),
                pid: record.map(|record| record.pid),
                instead_at: (!own).then(|| hooks::answered_by(&info)).flatten(),
                comm: record.map(|record| record.comm.clone()),
                places: match (known, record) {
                    (Some(known), Some(record)) => places(known.places, record),
                    _ => Vec::new(),
                },
            }
        })
        .collect();
    let shown: HashSet<u32> = programs.iter().map(|program| program.id).collect();
    let attached = known.map_or(&[][..], |known| &known.attached);
    programs.extend(hooks::hidden(&shown, attached).into_iter().map(hidden));
    Ok(programs)
}

// The gate itself keeps nothing from the daemon.
fn hidden((id, why): (u32, String)) -> Loaded {
    Loaded {
        id,
        prog_type: 0,
        name: String::new(),
        tag: String::new(),
        uid: 0,
        at: Duration::ZERO,
        own: false,
        class: None,
        bundle: None,
        admitted: None,
        pid: None,
        comm: None,
        instead_at: Some(format!("bpf_prog ({why})")),
        places: Vec::new(),
    }
}

fn places(map: &MapHandle, record: &Record) -> Vec<String> {
    // One that is missing is no place, which is not the same as none at all.
    let pattern = |number: u32| {
        let key = Fields::default().u32s(&[record.image, number]).done(8);
        let value = map.lookup(&key, MapFlags::ANY).ok().flatten();
        Reader(&value.unwrap_or_default()).text::<PLACE_BYTES>()
    };
    (0..record.places).map(pattern).collect()
}

fn by_id(records: &MapHandle) -> io::Result<HashMap<u32, Record>> {
    let mut found = HashMap::new();
    for key in records.keys() {
        // A program that went away since is no error.
        if let Some(value) = records
            .lookup(&key, MapFlags::ANY)
            .map_err(io::Error::other)?
        {
            let record = Record::read(&value);
            found.insert(record.id, record);
        }
    }
    Ok(found)
}

/// Images that loaded programs came from.
pub fn images(records: &MapHandle) -> io::Result<Vec<u32>> {
    Ok(by_id(records)?
        .into_values()
        .map(|record| record.image)
        .collect())
}

/// Images by whose places the kernel side knows the callers of an array of programs; arrays that are
/// gone are forgotten.
pub fn callers(arrays: &MapHandle) -> io::Result<Vec<u32>> {
    let mut images = Vec::new();
    for key in arrays.keys() {
        let gone = MapHandle::from_map_id(Reader(&key).u32())
            .is_err_and(|error| error.kind() == libbpf_rs::ErrorKind::NotFound);
        if gone {
            arrays.delete(&key).map_err(io::Error::other)?;
        } else if let Some(array) = arrays
            .lookup(&key, MapFlags::ANY)
            .map_err(io::Error::other)?
        {
            images.push(Reader(&array).u32());
        }
    }
    Ok(images)
}
