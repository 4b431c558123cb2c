//! Structs of functions (`struct_ops`): the kernel binds a program to one member of one struct when
//! it loads it, and so does the gate.

use std::io;

use enforcer::{
    gate::{Class, Gate as _, GateError},
    kernel::BpfGate,
    measure::members::{self, Member},
};
use libbpf_rs::btf::Btf;
use policy::Reason;

use super::{EXIT, Load, SOCKET_FILTER, admissions, arm_with, attempt, check, entry, r0, try_bad};

const STRUCT_OPS: u32 = 27;

/// Two instructions that fit any member which returns a number.
fn program(words: u32, member: Member) -> Load {
    Load {
        attach_type: member.index,
        btf_id: member.of,
        ..Load::new("member", STRUCT_OPS, &[r0(words), EXIT])
    }
}

fn members() -> Result<[Member; 3], String> {
    let btf = Btf::from_vmlinux().map_err(|error| error.to_string())?;
    let find = |name| members::find(name, &btf);
    Ok([
        find("tcp_congestion_ops:ssthresh")?,
        find("tcp_congestion_ops:undo_cwnd")?,
        find("bpf_dummy_ops:test_1")?,
    ])
}

/// What is admitted for one member loads for it alone.
pub fn run() -> Result<bool, GateError> {
    let [signed, other, elsewhere] = match members() {
        Ok(members) => members,
        Err(why) => return Ok(check("this kernel has structs of functions", Err(why))),
    };
    let good = program(0x90, signed);
    let bad = [
        attempt("a member that nobody signed", Reason::Unsigned, {
            let load = Load {
                name: "stranger",
                ..program(0x91, signed)
            };
            move || load.load()
        }),
        attempt(
            "a signed member as another one of the same struct",
            Reason::AttachTarget,
            {
                let load = program(0x90, other);
                move || load.load()
            },
        ),
        attempt(
            "a signed member as the same number of another struct",
            Reason::AttachTarget,
            {
                let load = program(
                    0x90,
                    Member {
                        index: signed.index,
                        ..elsewhere
                    },
                );
                move || load.load()
            },
        ),
        attempt("a signed member as another type", Reason::OtherType, || {
            Load::new("member", SOCKET_FILTER, &[r0(0x90), EXIT]).load()
        }),
    ];
    let said = |result: io::Result<_>| match result {
        Ok(_) => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    };
    let mut fine = check("a member loads without a gate", said(good.load()));
    for one in &bad {
        fine &= check(
            &format!("{} loads without a gate", one.what),
            said((one.load)()),
        );
    }
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries.push(entry(&good, vec![], Class::Signed));
    arm_with(&mut gate, &all)?;
    fine &= check("a signed member loads", said(good.load()));
    for one in &bad {
        fine &= try_bad(&mut gate, one);
    }
    gate.disarm()?;
    Ok(fine)
}
