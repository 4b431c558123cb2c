//! Every program in the kernel, and how it came in.

use std::{collections::HashMap, io, time::Duration};

use libbpf_rs::{MapCore, MapFlags, MapHandle, query::ProgInfoIter};

use super::shared::{Origin, Reader, Record};
use crate::gate::{Class, Loaded};

/// Lists programs with their records, if there are any yet. `is_own` knows the gate's own.
pub fn list(
    records: Option<&MapHandle>,
    is_own: &dyn Fn(u32) -> bool,
    origins: &HashMap<u32, Origin>,
    armed_at: Duration,
) -> io::Result<Vec<Loaded>> {
    let records = records.map(by_id).transpose()?.unwrap_or_default();
    Ok(ProgInfoIter::default()
        .map(|info| {
            let record = records.get(&info.id);
            let class = match record {
                Some(record) => record.class,
                None => (info.load_time < armed_at).then_some(Class::Before),
            };
            Loaded {
                id: info.id,
                prog_type: info.ty as u32,
                name: info.name.to_string_lossy().into_owned(),
                tag: hex::encode(info.tag.0),
                uid: info.created_by_uid,
                at: info.load_time,
                own: is_own(info.id),
                class,
                bundle: record
                    .and_then(|record| origins.get(&record.image))
                    .and_then(|origin| origin.bundle),
                pid: record.map(|record| record.pid),
                comm: record.map(|record| record.comm.clone()),
            }
        })
        .collect())
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
