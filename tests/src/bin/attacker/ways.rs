//! Every way to load and attach that the kernel has, one row each: before the gate is armed, all of
//! them work; after that no unsigned program loads for any of them, and a signed one is attached
//! where its rule says and nowhere else.

#[path = "ways/table.rs"]
mod table;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use enforcer::{
    gate::{Class, Entry, Gate, GateError, Revoked},
    kernel::BpfGate,
    measure::named::named,
};
use libbpf_rs::btf::{
    Btf, BtfKind,
    types::{Func, Struct},
};
use policy::Reason;

use super::{
    Attr, EXIT, LINK_CREATE, Load, admissions, arm_with, bundle, check, entry, judged, many,
    options, r0, works,
};

/// `enum bpf_cmd`
const LINK_UPDATE: u32 = 29;

type Attach = fn(&OwnedFd) -> io::Result<()>;

/// Where the way leads.
enum Goes {
    /// The kernel binds the target at load: only what is loaded can be wrong.
    Bound,
    /// To a place with a name: a pattern that covers it, and one that does not.
    To(&'static str, &'static str),
    /// To a place that has no name for the gate: programs with places are refused there.
    Nameless,
}

struct Way {
    what: &'static str,
    /// A struct of the kernel that has it; else it is left out.
    needs: Option<&'static str>,
    prog_type: u32,
    attach_type: u32,
    /// A function whose BTF id the load names.
    target: Option<&'static str>,
    /// What the program returns: the verifier wants certain values.
    returns: u32,
    goes: Goes,
    attach: Attach,
}

const WAY: Way = Way {
    what: "",
    needs: None,
    prog_type: 0,
    attach_type: 0,
    target: None,
    returns: 1,
    goes: Goes::Nameless,
    attach: |_| Ok(()),
};

pub fn function_id(name: &str) -> Option<u32> {
    let btf = Btf::from_vmlinux().ok()?;
    let found = named::<Func<'_>>(&btf, name, BtfKind::Func)?;
    Some(u32::from(found.type_id()))
}

/// What is tried with each way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Unsigned,
    Elsewhere,
    Home,
}

impl Way {
    fn exists(&self, btf: &Btf<'_>) -> bool {
        let has = |name| named::<Struct<'_>>(btf, name, BtfKind::Struct).is_some();
        self.needs.is_none_or(has)
    }

    /// A program of its own for each way and variant: the number only tells them apart.
    fn load(&self, number: usize, variant: Variant) -> Load {
        let number = 0x1000 + 4 * number as u32 + variant as u32;
        let btf_id = self.target.and_then(function_id).unwrap_or_default();
        // By the name of an admitted program it would be said where it differs.
        let name = match variant {
            Variant::Unsigned => "stranger",
            Variant::Elsewhere | Variant::Home => "way",
        };
        Load {
            attach_type: self.attach_type,
            btf_id,
            ..Load::new(name, self.prog_type, &[r0(number), r0(self.returns), EXIT])
        }
    }

    fn variants(&self) -> &[Variant] {
        match self.goes {
            Goes::Bound => &[Variant::Unsigned, Variant::Home],
            Goes::To(..) | Goes::Nameless => {
                &[Variant::Unsigned, Variant::Elsewhere, Variant::Home]
            }
        }
    }

    fn entries(&self, number: usize) -> Vec<Entry> {
        let signed = |variant| {
            let mut entry = entry(&self.load(number, variant), vec![], Class::Signed);
            let place = match (&self.goes, variant) {
                (Goes::To(home, _), Variant::Home) => Some(*home),
                (Goes::To(_, elsewhere), Variant::Elsewhere) => Some(*elsewhere),
                (Goes::Nameless, Variant::Elsewhere) => Some("/somewhere"),
                _ => None,
            };
            entry.image.places = place.map(str::to_owned).into_iter().collect();
            entry
        };
        let variants = self.variants().iter();
        variants
            .filter(|variant| **variant != Variant::Unsigned)
            .map(|variant| signed(*variant))
            .collect()
    }
}

pub fn run() -> Result<bool, GateError> {
    let Ok(btf) = Btf::from_vmlinux() else {
        return Ok(check("this kernel has BTF", Err("none".into())));
    };
    let ways: Vec<(usize, Way)> = table::ways()
        .into_iter()
        .enumerate()
        .filter(|(_, way)| way.exists(&btf))
        .collect();
    let mut fine = true;
    for (number, way) in &ways {
        for &variant in way.variants() {
            let result = way
                .load(*number, variant)
                .load()
                .and_then(|program| (way.attach)(&program));
            let which = match variant {
                Variant::Unsigned => "an unsigned program",
                Variant::Elsewhere => "a program for elsewhere",
                Variant::Home => "a program",
            };
            fine &= works(
                &format!("{which} goes to {} without a gate", way.what),
                result,
            );
        }
    }
    if let Some((number, way)) = ways
        .iter()
        .find(|(_, way)| way.attach_type == many::ENTRIES)
    {
        let program = way.load(*number, Variant::Home).load();
        let result = program.and_then(|program| many::by_ids(&program, many::ENTRIES, 1));
        let name = "a link to many functions with what no kernel knows is made without a gate";
        fine &= works(name, result);
    }
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries
        .extend(ways.iter().flat_map(|(number, way)| way.entries(*number)));
    arm_with(&mut gate, &all)?;
    for (number, way) in &ways {
        for &variant in way.variants() {
            let want = match variant {
                Variant::Unsigned => Some((1, Reason::Unsigned)),
                Variant::Elsewhere => Some((3, Reason::AttachPlace)),
                Variant::Home => None,
            };
            let name = match variant {
                Variant::Unsigned => format!("an unsigned program for {} is refused", way.what),
                Variant::Elsewhere => format!("a program for elsewhere is refused {}", way.what),
                Variant::Home => format!("a signed program goes to {}", way.what),
            };
            let load = way.load(*number, variant);
            let attempt = || load.load().and_then(|program| (way.attach)(&program));
            fine &= judged(&mut gate, &name, want, attempt);
        }
    }
    fine &= updates(&mut gate, &ways);
    fine &= later(&mut gate, &ways);
    fine &= another_call(&mut gate, &ways);
    fine &= revoked(&mut gate, &ways)?;
    gate.disarm()?;
    Ok(fine)
}

/// The way of that name, if this kernel has it.
fn find<'w>(ways: &'w [(usize, Way)], what: &str) -> Option<&'w (usize, Way)> {
    ways.iter().find(|(_, way)| way.what == what)
}

/// Gate 3 refuses the attempt for that reason.
fn refused(
    gate: &mut BpfGate,
    name: &str,
    reason: Reason,
    attempt: impl FnOnce() -> io::Result<()>,
) -> bool {
    judged(gate, name, Some((3, reason)), attempt)
}

/// A link that was made with a program for its place gets another one for that place, and none for elsewhere.
fn updates(gate: &mut BpfGate, ways: &[(usize, Way)]) -> bool {
    let what = "a control group by link";
    let Some((number, way)) = find(ways, what) else {
        return check("there is a link to update", Err(what.into()));
    };
    let update = |to: Variant| {
        let home = way.load(*number, Variant::Home).load()?;
        let next = way.load(*number, to).load()?;
        let group = table::group_of("inside")?;
        let link = Attr::new()
            .u32(0, home.as_raw_fd() as u32)
            .u32(4, group.as_raw_fd() as u32)
            .u32(8, table::CGROUP_EGRESS)
            .open(LINK_CREATE)?;
        Attr::new()
            .u32(0, link.as_raw_fd() as u32)
            .u32(4, next.as_raw_fd() as u32)
            .call(LINK_UPDATE)
            .map(drop)
    };
    let at_home = update(Variant::Home).map(|()| String::new());
    let name = "a link gets another program for its place";
    let fine = check(name, at_home.map_err(|error| error.to_string()));
    let name = "a link gets no program for elsewhere";
    refused(gate, name, Reason::AttachPlace, || {
        update(Variant::Elsewhere)
    }) && fine
}

/// The gate does not know where that call has the program, so it lets none through.
fn another_call(gate: &mut BpfGate, ways: &[(usize, Way)]) -> bool {
    let Some((number, way)) = find(ways, "a socket") else {
        return check("there is a way to a socket", Err("none".into()));
    };
    let name = "a program for a socket by the call of 32-bit programs is refused";
    refused(gate, name, Reason::AttachPlace, || {
        let program = way.load(*number, Variant::Home).load()?;
        options::by_another_call(&program)
    })
}

/// A command with more in it than any kernel knows: a later one may trace other programs by it.
fn later(gate: &mut BpfGate, ways: &[(usize, Way)]) -> bool {
    let Some((number, way)) = find(ways, "entries of many functions") else {
        return true; // before 7.3
    };
    let name = "a link to many functions with what no kernel knows is refused";
    refused(gate, name, Reason::AttachProgram, || {
        let program = way.load(*number, Variant::Home).load()?;
        many::by_ids(&program, many::ENTRIES, 1)
    })
}

/// Whoever holds a program that was revoked since attaches it by none of the ways. Nothing of the
/// bundle loads after this.
fn revoked(gate: &mut BpfGate, ways: &[(usize, Way)]) -> Result<bool, GateError> {
    let held: Vec<(&Way, io::Result<OwnedFd>)> = ways
        .iter()
        .map(|(number, way)| (way, way.load(*number, Variant::Home).load()))
        .collect();
    gate.revoke(&Revoked {
        bundles: [bundle()].into(),
        ..Revoked::default()
    })?;
    let mut fine = true;
    for (way, program) in held {
        let name = format!("a revoked program does not go to {}", way.what);
        fine &= refused(gate, &name, Reason::RevokedAttach, || {
            (way.attach)(&program?)
        });
    }
    Ok(fine)
}
