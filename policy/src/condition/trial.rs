//! A trial with an inventory that has one of everything: it finds misspelt fields and wrong
//! types while the policy is checked, as far as an evaluation comes.

use cel::{ExecutionError, Value};
use serde_json::json;

use super::{About, Condition, Facts, Flaw, check};

pub(super) fn run(condition: &Condition, about: About<'_>) -> Result<(), Flaw> {
    let inventory = sample();
    let facts = Facts::of_json(inventory.clone()).unwrap_or_else(|_| Facts::none());
    let facts = match about {
        About::Predicate(uri) if uri == bundle::media::INVENTORY_PREDICATE => facts
            .with_predicate(inventory)
            .unwrap_or_else(|_| Facts::none()),
        // What a stranger's predicate looks like is not known.
        About::Predicate(_) if condition.uses.contains(&"predicate") => return Ok(()),
        About::Predicate(_) | About::Inventory => facts,
    };
    match condition.resolve(&facts) {
        Ok(Value::Bool(_)) => Ok(()),
        Ok(other) => Err(Flaw::whole(format!(
            "a condition is true or false; this is {}",
            check::kind(&other)
        ))),
        Err(error) if is_certain(&error, &condition.text) => {
            Err(Flaw::whole(check::clause(&error)))
        }
        Err(_) => Ok(()),
    }
}

/// Would it fail with every inventory? Fields that depend on the bundle are asked for by a
/// quoted name.
fn is_certain(error: &ExecutionError, text: &str) -> bool {
    match error {
        ExecutionError::NoSuchKey(key) => {
            !text.contains(&format!("\"{key}\"")) && !text.contains(&format!("'{key}'"))
        }
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::UndeclaredReference(_) => true,
        _ => false,
    }
}

fn sample() -> serde_json::Value {
    let map = json!({
        "name": "events", "type": "ringbuf", "key_size": 0, "value_size": 0,
        "max_entries": 4096, "flags": 0, "map_extra": 1, "pinning": "none", "legacy": false,
        "optional": true,
        "inner": {
            "name": "inner", "type": "hash", "key_size": 4, "value_size": 4, "max_entries": 1,
            "flags": 0, "map_extra": 1, "pinning": "none", "legacy": false, "optional": true,
        },
    });
    json!({
        "schema": bundle::inventory::SCHEMA,
        "name": "probe", "version": "1.4.0", "source": "https://example.com/probe",
        "objects": [{
            "name": "probe.bpf.o", "digest": "sha256:00", "size": 4096, "endianness": "little",
            "license": "GPL", "btf": true, "btf_ext": true,
            "programs": [{
                "name": "probe", "section": "lsm.s/file_open", "type": "lsm",
                "attach_type": "lsm_mac", "target": "file_open", "members": ["hid_bpf_ops:hid_device_event"],
                "sleepable": true,
                "optional": false, "insns": 2, "total_insns": 3, "helpers": ["bpf_get_prandom_u32"],
                "kfuncs": ["bpf_task_release"], "calls": ["inner"], "maps": ["events"],
                "core_relocations": 1, "loops": false,
            }],
            "subprograms": [{
                "name": "inner", "section": ".text", "linkage": "static", "insns": 1,
            }],
            "maps": [map],
            "data": [{
                "section": ".rodata", "size": 4, "readonly": true,
                "variables": [{
                    "name": "pid", "offset": 0, "size": 4, "volatile": true, "signed": true,
                    "tunable": true,
                }],
            }],
            "externs": [{ "name": "CONFIG_HZ", "kind": "kconfig", "weak": false }],
            "needs": {
                "oldest_kernel": "5.8", "features": { "ringbuf": "5.8" }, "kernel_btf": true,
            },
        }],
    })
}
