//! Loaders that the kernel checks itself, with something changed: it is the kernel that refuses
//! them. No gate is armed.

#![expect(unsafe_code, reason = "system calls for keys")]

use std::{fs, io};

use bundle::{
    Layout,
    layout::Limits,
    loader::{Form, KernelLoader},
    media,
};
use enforcer::{
    gate::{Admissions, Gate as _, GateError},
    kernel::BpfGate,
    load::{Keyring, LoadError, Loaded, Step, form_of, load, load_with},
};
use libbpf_rs::btf::Btf;

use super::{
    ARRAY, Attr, EXIT, MAP_FREEZE, MAP_UPDATE_ELEM, PROG_LOAD, SOCKET_FILTER, arm_with,
    bpf::MAP_CREATE, check, drain, measured, r0,
};
use policy::{
    Reason,
    kernel_signature::{self, Hash, Naming},
    signer::Signer,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

// include/uapi/linux/keyctl.h
const KEY_SPEC_USER_KEYRING: i32 = -4;
const KEY_SPEC_SESSION_KEYRING: i32 = -3;
const KEYCTL_RESTRICT_KEYRING: i32 = 29;

fn add_key(kind: &str, name: &str, payload: &[u8], ring: i32) -> io::Result<i32> {
    let text = |text: &str| std::ffi::CString::new(text).map_err(io::Error::other);
    let (kind, name) = (text(kind)?, text(name)?);
    let bytes = match payload {
        [] => std::ptr::null(),
        _ => payload.as_ptr(),
    };
    // SAFETY: both texts end with NUL, and the payload is as long as the kernel is told.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            bytes,
            payload.len(),
            ring,
        )
    };
    match serial {
        0.. => Ok(serial as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A keyring of that name with one certificate, or none; nothing can be added to it any more.
fn restricted(name: &str, certificate: Option<&[u8]>) -> io::Result<i32> {
    let ring = add_key("keyring", name, &[], KEY_SPEC_USER_KEYRING)?;
    if let Some(certificate) = certificate {
        add_key("asymmetric", "signer", certificate, ring)?;
    }
    let none = std::ptr::null::<u8>();
    // SAFETY: without a type the restriction is "nothing at all", and no memory is read.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_RESTRICT_KEYRING, ring, none, none) };
    match result {
        0.. => Ok(ring),
        _ => Err(io::Error::last_os_error()),
    }
}

fn certificate(pem: &str) -> io::Result<Vec<u8>> {
    let certificates = policy::x509::certificates(&fs::read(pem)?).map_err(io::Error::other)?;
    Ok(certificates.concat())
}

/// `keyring PEM`: prints the serial number of a restricted keyring with the certificate.
pub fn keyring(words: &[String]) -> io::Result<i32> {
    let pem = words.first().map_or("", String::as_str);
    restricted("bpfseal-tests", Some(&certificate(pem)?))
}

/// Every loader of a bundle in the form that this kernel checks.
fn loaders(tar: &str) -> io::Result<Vec<KernelLoader>> {
    let btf = Btf::from_vmlinux().map_err(io::Error::other)?;
    let form = form_of(&btf).ok_or_else(|| io::Error::other("this kernel checks no form"))?;
    let tar = fs::read(tar)?;
    let layout = Layout::read(tar.as_slice(), &Limits::default()).map_err(io::Error::other)?;
    let bundle = layout.bundle().map_err(io::Error::other)?;
    let layers = bundle.manifest().layers.iter();
    let mut loaders = Vec::new();
    for layer in layers.filter(|layer| layer.media_type == media::KERNEL_LOADER) {
        let bytes = layout.described(layer).map_err(io::Error::other)?;
        let loader = KernelLoader::read(bytes).map_err(io::Error::other)?;
        if loader.about.form == form {
            loaders.push(loader);
        }
    }
    Ok(loaders)
}

/// Whom to ask, and how the answer must look.
type Answer = (Step, &'static [i32]);

/// The kernel's own words for a signature that does not hold.
const REJECTED: &[i32] = &[libc::EKEYREJECTED];
/// By an unknown key, or wrong.
const BROKEN: &[i32] = &[libc::EKEYREJECTED, libc::ENOKEY, libc::EINVAL];

fn judged(result: &Result<Loaded, LoadError>, (step, codes): Answer) -> Result<String, String> {
    match result {
        Ok(_) => Err("it was loaded".into()),
        Err(error) => {
            let code = error.source.raw_os_error().unwrap_or(0);
            match error.step == step && codes.contains(&code) {
                true => Ok(format!("{error}: {}", error.source)),
                false => Err(format!(
                    "{error}: {}, want {step:?} {codes:?}",
                    error.source
                )),
            }
        }
    }
}

/// Changes one byte at many places; every one must be refused in this way.
fn each(
    what: &str,
    length: usize,
    want: Answer,
    mut attempt: impl FnMut(usize) -> Result<Loaded, LoadError>,
) -> bool {
    // A prime stride meets every byte of an 8-byte slot.
    let stride = (length / 48).max(1) | 1;
    let places: Vec<usize> = (0..length).step_by(stride).chain([length - 1]).collect();
    let wrong = places.iter().find_map(|&at| {
        judged(&attempt(at), want)
            .err()
            .map(|why| format!("byte {at} of {length}: {why}"))
    });
    check(
        what,
        match wrong {
            None => Ok(format!("{} of {length} bytes, each refused", places.len())),
            Some(why) => Err(why),
        },
    )
}

/// `signed BUNDLE SERIAL PEM`: as signed everything loads; with a byte changed the kernel refuses.
pub fn run(words: &[String]) -> bool {
    let [tar, serial, pem] = words else {
        return check("signed", Err("wants a bundle, a keyring and PEM".into()));
    };
    let ring = Keyring(serial.parse().unwrap_or(-1));
    let found = loaders(tar);
    let mut fine = check(
        "the bundle has loaders of this kernel's form",
        match &found {
            Ok(found) if !found.is_empty() => {
                Ok(format!("{} {}", found.len(), found[0].about.form))
            }
            Ok(_) => Err("it has none".into()),
            Err(error) => Err(error.to_string()),
        },
    );
    let found = found.unwrap_or_default();
    for loader in &found {
        let name = loader.about.programs.join(",");
        fine &= check(
            &format!("{name} loads as signed"),
            load(loader, Some(ring))
                .map(|loaded| format!("{} maps", loaded.maps.len()))
                .map_err(|error| format!("{error}: {}", error.source)),
        );
    }
    let Some(loader) = found.first() else {
        return fine;
    };
    fine &= changed(loader, ring);
    fine &= other_rings(loader, pem);
    fine & other_maps(loader, ring)
}

fn changed(loader: &KernelLoader, ring: Keyring) -> bool {
    let attempt = |edit: &dyn Fn(&mut KernelLoader)| {
        let mut loader = loader.clone();
        edit(&mut loader);
        load(&loader, Some(ring))
    };
    let insns = loader.loader.insns.len();
    let mut fine = each(
        "a changed byte of the instructions",
        insns,
        (Step::Loader, REJECTED),
        |at| attempt(&|loader| loader.loader.insns[at] ^= 1),
    );
    let of_data = match loader.about.form {
        // The loader itself compares the digest that the kernel computed.
        Form::MapChecked => (Step::Run, &[libc::EINVAL][..]),
        Form::MapSigned => (Step::Loader, REJECTED),
    };
    let data = loader.loader.data.len();
    fine &= each("a changed byte of the data", data, of_data, |at| {
        // The table of descriptors is part of it, and a loader that gives up closes what stands
        // there: none of ours.
        attempt(&|loader| loader.loader.data[at] ^= 0x80)
    });
    // What the kernel reads of it: the name of the key, and the signature's value at its end. It
    // skips the list of digests at the beginning, which nothing signs.
    let signature = loader.signature.clone().unwrap_or_default();
    let named = signature.windows(2).position(|tag| tag == [0x80, 20]);
    let value = signature.len().saturating_sub(256);
    for (what, start, length) in [
        (
            "a changed byte of the signature's key",
            named.map_or(0, |at| at + 2),
            20,
        ),
        ("a changed byte of the signature", value, 256),
    ] {
        fine &= each(what, length, (Step::Loader, BROKEN), |at| {
            let mut signature = signature.clone();
            signature[start + at] ^= 1;
            attempt(&|loader| loader.signature = Some(signature.clone()))
        });
    }
    fine &= check(
        "a loader with another object's signature",
        judged(
            &attempt(&|loader| loader.loader.insns.extend([0x95, 0, 0, 0, 0, 0, 0, 0])),
            (Step::Loader, REJECTED),
        ),
    );
    fine
}

/// A keyring without the certificate; and that the caller's own keyring would do for the kernel,
/// which is why who decides has to look at the keyring.
fn other_rings(loader: &KernelLoader, pem: &str) -> bool {
    let empty = restricted("bpfseal-empty", None).map(Keyring);
    let fine = match empty {
        Ok(empty) => check(
            "a keyring without the certificate",
            judged(&load(loader, Some(empty)), (Step::Loader, &[libc::ENOKEY])),
        ),
        Err(error) => check("a keyring without the certificate", Err(error.to_string())),
    };
    let own = certificate(pem)
        .and_then(|der| add_key("asymmetric", "own", &der, KEY_SPEC_SESSION_KEYRING))
        .map_err(|error| error.to_string())
        .and_then(|_| {
            load(loader, Some(Keyring(KEY_SPEC_SESSION_KEYRING)))
                .map(|_| "the kernel accepts any key that the caller enrols".to_owned())
                .map_err(|error| format!("{error}: {}", error.source))
        });
    fine & check("the kernel alone does not ask whose keyring it is", own)
}

/// The right bytes in a map that others could change.
fn other_maps(loader: &KernelLoader, ring: Keyring) -> bool {
    let data = &loader.loader.data;
    let make = |exclusive: bool, frozen: bool| -> io::Result<OwnedFd> {
        let hash = loader.exclusive_to();
        let (zero, mut attr) = (0_u32, Attr::new());
        attr = attr
            .u32(0, ARRAY)
            .u32(4, 4)
            .u32(8, data.len() as u32)
            .u32(12, 1);
        if exclusive {
            attr = attr
                .u64(EXCL_PROG_HASH, hash.as_bytes().as_ptr() as u64)
                .u32(EXCL_PROG_HASH + 8, 32);
        }
        let map = attr.open(MAP_CREATE)?;
        let fd = map.as_raw_fd() as u32;
        Attr::new()
            .u32(0, fd)
            .u64(8, (&raw const zero) as u64)
            .u64(16, data.as_ptr() as u64)
            .call(MAP_UPDATE_ELEM)?;
        if frozen {
            Attr::new().u32(0, fd).call(MAP_FREEZE)?;
        }
        Ok(map)
    };
    let attempt = |exclusive, frozen| {
        make(exclusive, frozen)
            .map_err(|source| LoadError {
                step: Step::Map,
                source,
            })
            .and_then(|map| load_with(loader, &map, Some(ring)))
    };
    let step = match loader.about.form {
        Form::MapChecked => Step::Run,
        Form::MapSigned => Step::Loader,
    };
    let want: Answer = (step, &[libc::EINVAL, libc::EACCES, libc::EPERM]);
    // A map that is not frozen has no digest that its loader could compare.
    let unfrozen: Answer = match loader.about.form {
        Form::MapChecked => (Step::Map, &[libc::EPERM]),
        Form::MapSigned => want,
    };
    check(
        "a map that is not exclusive",
        judged(&attempt(false, true), want),
    ) & check(
        "a map that is not frozen",
        judged(&attempt(true, false), unfrozen),
    )
}

/// Offset of `excl_prog_hash` in `union bpf_attr`.
const EXCL_PROG_HASH: usize = 80;

/// What is tried, what the gate admits, by which keyring, and where and why it is refused.
type Case = (
    &'static str,
    Admissions,
    Option<Keyring>,
    Option<(Step, Reason)>,
);

// enum bpf_sig_keyring
const SECONDARY: u32 = 2;
const USER: u32 = 4;

/// `native BUNDLE SERIAL KEY PEM OBJECT…`: a gate that lets loaders pass which the kernel has verified by
/// one kind of keyring. No policy can name a user's keyring; it stands here for one of the system,
/// because nobody outside of Debian can sign for those.
pub fn native(words: &[String]) -> Result<bool, GateError> {
    let [tar, serial, key, pem, objects @ ..] = words else {
        return Ok(check(
            "native",
            Err("wants BUNDLE SERIAL KEY PEM OBJECT…".into()),
        ));
    };
    let ring = Keyring(serial.parse().unwrap_or(-1));
    let (Ok(loaders), Ok(programs)) = (loaders(tar), measured(objects)) else {
        return Ok(check(
            "native",
            Err("cannot read bundle and objects".into()),
        ));
    };
    let Some(loader) = loaders.first() else {
        return Ok(check("native", Err("the bundle has no loader".into())));
    };
    let with = |keyrings: &[u32], entries: bool| Admissions {
        entries: if entries {
            programs.entries.clone()
        } else {
            enforcer::probes::entries()
        },
        keyrings: keyrings.iter().copied().collect(),
        ..Admissions::default()
    };
    let mut gate = BpfGate::open()?;
    let mut fine = true;
    let session = own_session(pem);
    let cases: [Case; 6] = [
        (
            "a loader that the kernel verified, by a keyring that is named, and what it loads",
            with(&[USER], true),
            Some(ring),
            None,
        ),
        (
            "a verified loader that loads what nobody admitted",
            with(&[USER], false),
            Some(ring),
            Some((Step::Run, Reason::KernelCore)),
        ),
        (
            "a loader that is not signed",
            with(&[USER], true),
            None,
            Some((Step::Loader, Reason::MapIndex)),
        ),
        (
            "a verified loader, and the policy names no keyring",
            with(&[], true),
            Some(ring),
            Some((Step::Loader, Reason::MapIndex)),
        ),
        (
            "a loader that the kernel verified by a keyring of the caller's",
            with(&[SECONDARY], true),
            Some(ring),
            Some((Step::Loader, Reason::KernelKeyring)),
        ),
        (
            "a loader that the kernel verified by a key that its caller enrolled",
            with(&[SECONDARY], true),
            Some(session),
            Some((Step::Loader, Reason::KernelKeyring)),
        ),
    ];
    for (what, admissions, keyring, want) in cases {
        arm_with(&mut gate, &admissions)?;
        drain(&mut gate);
        let result = load(loader, keyring);
        let events = drain(&mut gate);
        let reason = events
            .iter()
            .find(|event| event.refused)
            .and_then(|event| event.reason);
        fine &= check(what, as_wanted(&result, reason, want));
        drop(result);
        gate.disarm()?;
    }
    // The signature covers no type: the same two instructions, signed, as a socket filter.
    arm_with(&mut gate, &with(&[USER], false))?;
    drain(&mut gate);
    let result = signed_filter(key, pem, ring);
    let events = drain(&mut gate);
    let reason = events
        .iter()
        .find(|event| event.refused)
        .and_then(|event| event.reason);
    fine &= check(
        "a verified program that is no loader",
        match (result, reason) {
            (Err(error), Some(Reason::Unsigned)) if error.raw_os_error() == Some(libc::EPERM) => {
                Ok(error.to_string())
            }
            (result, reason) => Err(format!("{result:?} {reason:?}")),
        },
    );
    gate.disarm()?;
    Ok(fine)
}

fn as_wanted(
    result: &Result<Loaded, LoadError>,
    reason: Option<Reason>,
    want: Option<(Step, Reason)>,
) -> Result<String, String> {
    match (result, want) {
        (Ok(_), None) => Ok("loaded".into()),
        (Err(error), Some((step, because)))
            if error.step == step
                && error.source.raw_os_error() == Some(libc::EPERM)
                && reason == Some(because) =>
        {
            Ok(format!("E{}", because.number()))
        }
        (Ok(_), Some(_)) => Err("it was loaded".into()),
        (Err(error), _) => Err(format!(
            "{error}: {}, {reason:?}, want {want:?}",
            error.source
        )),
    }
}

/// The caller's own keyring, with the certificate in it.
fn own_session(pem: &str) -> Keyring {
    let enrolled = certificate(pem)
        .and_then(|der| add_key("asymmetric", "own", &der, KEY_SPEC_SESSION_KEYRING));
    if let Err(error) = enrolled {
        check("a key is enrolled", Err(error.to_string()));
    }
    Keyring(KEY_SPEC_SESSION_KEYRING)
}

/// `r0 = 42; exit` with a signature of the kernel's.
fn signed_filter(key: &str, pem: &str, ring: Keyring) -> io::Result<OwnedFd> {
    let random = ring_random();
    let mut ask = || Err(policy::signer::BadPrivateKey::NoRandomness);
    let (signer, _) =
        Signer::from_pem(&fs::read(key)?, &mut ask, &random).map_err(io::Error::other)?;
    let chain = policy::x509::certificates(&fs::read(pem)?).map_err(io::Error::other)?;
    let signer = signer.with_certificates(chain).map_err(io::Error::other)?;
    let words = [r0(42), EXIT];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let signature = kernel_signature::sign(&bytes, &signer, Hash::Sha256, Naming::KeyId, &random)
        .map_err(io::Error::other)?;
    Attr::new()
        .u32(0, SOCKET_FILTER)
        .u32(4, words.len() as u32)
        .u64(8, words.as_ptr() as u64)
        .u64(16, c"GPL".as_ptr() as u64)
        .u64(SIGNATURE, signature.as_ptr() as u64)
        .u32(SIGNATURE + 8, signature.len() as u32)
        .u32(SIGNATURE + 12, ring.0 as u32)
        .open(PROG_LOAD)
}

fn ring_random() -> ring::rand::SystemRandom {
    ring::rand::SystemRandom::new()
}

/// Offset of `signature` in `union bpf_attr`.
const SIGNATURE: usize = 152;
