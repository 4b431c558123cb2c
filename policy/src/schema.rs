//! The JSON Schema of a policy file, for editors and for other tools that write one.
//!
//! These types are the schema only; [`crate::Policy::parse`] reads the file itself, with
//! better errors. A test holds the two lists of keys together.

#![expect(dead_code, reason = "the types exist for their derived schema")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};

/// The JSON Schema (2020-12) of a policy file.
pub fn policy() -> Schema {
    schemars::schema_for!(PolicyFile)
}

/// A bpfseal policy: who is trusted, with what.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "bpfseal policy")]
pub(crate) struct PolicyFile {
    /// Rises with each change; a signed policy must say it. Default: 1.
    #[schemars(range(min = 1))]
    version: Option<u64>,
    /// What the gate does with what the policy refuses. Default: "enforce".
    mode: Option<ModeEntry>,
    /// Never say "Enforcing" while programs that nobody judged are in the kernel. Default: false.
    strict: Option<bool>,
    /// Which ways into kernel memory are closed while the gate is armed.
    protect: Option<ProtectEntry>,
    /// Trusted keys by name.
    keys: Option<BTreeMap<String, KeyEntry>>,
    /// Trusted identities by name: keyless signatures.
    keyless: Option<BTreeMap<String, KeylessEntry>>,
    /// Trusted certificate authorities by name.
    x509: Option<BTreeMap<String, AuthorityEntry>>,
    /// Keyrings by which the kernel itself may verify loaders (`syscall` programs), from 7.2 on.
    kernel_keyring: Option<BTreeMap<String, KeyringEntry>>,
    /// Whose lists of probe programs are taken; none: those that are built in.
    probes: Option<ProbesEntry>,
    /// Which files may take the place of the enforcer's own, while it is armed; none: none.
    daemon: Option<DaemonEntry>,
    /// The first rule whose scope covers an artifact decides; none: refused.
    rule: Option<Vec<RuleEntry>>,
    /// Programs that can do no harm, whoever makes them.
    shape: Option<Vec<ShapeEntry>>,
    /// Known programs that make BPF programs as they go; what they make is not attested.
    generator: Option<Vec<GeneratorEntry>>,
    /// Bundles that are let in for a while although no rule would.
    exception: Option<Vec<ExceptionEntry>>,
}

/// Loaders' questions that are newer than the enforcer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ProbesEntry {
    /// Names of keys; any one is enough.
    #[schemars(length(min = 1))]
    signed_by: Vec<String>,
}

/// Next builds of the enforcer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct DaemonEntry {
    /// SHA-256 in hex, or several.
    sha256: SumsEntry,
}

/// A keyring to which nobody can add a key at will.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct KeyringEntry {
    /// Which one.
    keyring: KeyringWord,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum KeyringWord {
    /// Built into the kernel.
    Builtin,
    /// Those, what they vouch for, and machine owner keys.
    Secondary,
    /// The firmware's.
    Platform,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ModeEntry {
    /// Refuse it.
    Enforce,
    /// Let it pass and report it.
    Audit,
}

/// Ways into kernel memory: true refuses.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ProtectEntry {
    /// Modules without a valid signature. Default: false.
    unsigned_modules: Option<bool>,
    /// Another kernel by kexec. Default: true.
    kexec: Option<bool>,
    /// /dev/mem, /dev/port, mmiotrace. Default: true.
    dev_mem: Option<bool>,
    /// iopl, ioperm, serial ports' addresses. Default: true.
    io_ports: Option<bool>,
    /// Writing model-specific registers. Default: true.
    msr: Option<bool>,
    /// Writing PCI configuration and device memory. Default: true.
    pci: Option<bool>,
    /// Reading /proc/kcore. Default: true.
    kcore: Option<bool>,
    /// The kernel debugger. Default: true.
    debugger: Option<bool>,
    /// ACPI tables and methods, and device trees, from user space. Default: true.
    acpi_tables: Option<bool>,
    /// Hibernation. Default: true.
    hibernation: Option<bool>,
    /// Hardware addresses as parameters of modules. Default: true.
    hardware_parameters: Option<bool>,
}

/// A public key: either `file` or `pem`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct KeyEntry {
    /// A PEM file, relative to the policy file.
    file: Option<String>,
    /// The PEM text itself.
    pem: Option<String>,
}

/// An identity that Fulcio issues certificates for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct KeylessEntry {
    /// URI or e-mail address; `*` within a segment, a final `/*` for everything below.
    identity: String,
    /// The OIDC issuer, byte for byte.
    issuer: String,
    /// A `trusted_root.json`, relative to the policy file. Default: the public-good instance's.
    trusted_root: Option<String>,
    /// The JSON text itself.
    trusted_root_json: Option<String>,
}

/// An organisation's certificate authority, within limits; either `roots` or `roots_pem`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct AuthorityEntry {
    /// PEM certificates, relative to the policy file.
    roots: Option<String>,
    /// The PEM text itself.
    roots_pem: Option<String>,
    /// Who may sign: common names, e-mail addresses, DNS names, URIs, or distinguished names.
    #[schemars(length(min = 1))]
    names: Vec<String>,
    /// "code-signing", or the OID that the certificate must have. Default: "code-signing".
    usage: Option<String>,
    /// Most certificates between root and signer. Default: what the certificates say.
    #[schemars(range(max = 8))]
    max_path_length: Option<u64>,
    /// PEM revocation lists.
    crls: Option<String>,
    /// PEM chain of a time-stamp authority: its certificate first, its root last.
    timestamps: Option<String>,
}

/// For a scope, who must have signed and what the programs may be.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct RuleEntry {
    /// Unique name; refusals print it.
    name: String,
    /// `host[:port]/repository`; `*` within a segment, a final `/*` for everything below.
    scope: String,
    /// Who must have signed.
    signed_by: SignedByEntry,
    /// Program types allowed. Default: all but "ext" and "syscall".
    program_types: Option<Vec<String>>,
    /// `kind:name` of what the kernel binds at load. Default: ["*"], any but ext.
    load_targets: Option<Vec<String>>,
    /// `type:name` of declared attach points of all other programs. Default: ["*"].
    attach: Option<Vec<String>>,
    /// Helpers (`bpf_…`) and kernel functions (`kfunc:…`) that no program may call. Default: [].
    forbid_calls: Option<Vec<String>>,
    /// Variables that a loader may set; "*" for all that the bundle declares. Default: none.
    tunables: Option<BTreeMap<String, ValuesEntry>>,
    /// Maps that may have another size than signed; "*" for all. Default: none.
    map_sizes: Option<BTreeMap<String, SizeEntry>>,
    /// Lowest package version allowed.
    min_version: Option<String>,
    /// Attestations that the rule's signers must have made. Default: [].
    require: Option<Vec<RequireEntry>>,
    /// A condition (CEL) on `inventory`.
    when: Option<String>,
    /// How old signatures may be, by a trusted time: "90d", "36h", "12w". Default: any age.
    max_age: Option<String>,
}

/// An attestation.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum RequireEntry {
    /// "slsa-provenance", "spdx", "cyclonedx", "inventory", "verifier-evidence", or the URI of
    /// a predicate type.
    Type(String),
    /// The same with a condition.
    When(RequireWhenEntry),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct RequireWhenEntry {
    /// As above.
    r#type: String,
    /// A condition (CEL) on `predicate` and `inventory`.
    when: Option<String>,
}

/// So many distinct keys out of these.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SignedByEntry {
    /// Distinct keys needed. Default: 1.
    #[schemars(range(min = 1))]
    at_least: Option<u64>,
    /// Names of [keys.NAME], [keyless.NAME] or [x509.NAME].
    #[schemars(length(min = 1))]
    of: Vec<String>,
}

/// Values of a tunable.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum ValuesEntry {
    /// Any bytes.
    Any(Any),
    /// An integer from `min` to `max`, inclusive.
    Range(RangeEntry),
    /// One of these integers.
    OneOf(OneOfEntry),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Any {
    Any,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RangeEntry {
    min: i64,
    max: i64,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OneOfEntry {
    #[schemars(length(min = 1, max = 8))]
    one_of: Vec<i64>,
}

/// Sizes of a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum SizeEntry {
    /// Whatever the kernel accepts.
    Any(Any),
    /// So many entries.
    Entries(EntriesEntry),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EntriesEntry {
    max_entries: CountEntry,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CountEntry {
    min: u32,
    max: u32,
}

/// A known program that makes BPF programs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct GeneratorEntry {
    /// Unique name; events and `inventory` print it.
    name: String,
    /// Its executable.
    exe: PinnedEntry,
    /// All other files that it may execute code of. Default: none, a static executable.
    #[schemars(length(max = 128))]
    libraries: Option<Vec<PinnedEntry>>,
    /// Program types that it may load; not "ext" or "syscall".
    program_types: Vec<String>,
    /// Helpers that its programs may not call. Default: those that change other programs.
    forbid_calls: Option<Vec<String>>,
    /// Kinds of maps that its programs may use. Default: storage, and ways out.
    map_types: Option<Vec<String>>,
    /// Most maps of one program. Default: 64.
    #[schemars(range(max = 64))]
    maps: Option<u32>,
    /// Most instructions of one program. Default: 4096.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_insns: Option<u32>,
    /// Only in this control group, or below it. Default: anywhere.
    cgroup: Option<String>,
    /// Only as this user. Default: anybody who may.
    uid: Option<u32>,
    /// Only while a permit of the authority says so. Default: false.
    permit: Option<bool>,
}

/// A file with what it must contain.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct PinnedEntry {
    /// Where it is.
    path: String,
    /// SHA-256 of its contents in hex, or several of which one must fit. This or one of the next two.
    sha256: Option<SumsEntry>,
    /// Its fs-verity digest in hex, or several; `sha256` counts where the file has no fs-verity.
    fsverity: Option<SumsEntry>,
    /// Root hash in hex of the dm-verity volume that it is on, or several; `sha256` counts where it is on none.
    dmverity: Option<SumsEntry>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum SumsEntry {
    One(String),
    Several(Vec<String>),
}

/// A bundle that is let in for a while, whoever signed it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ExceptionEntry {
    /// SHA-256 of the bundle's manifest: "sha256:HEX".
    bundle: String,
    /// Why; events and `status` print it.
    reason: String,
    /// From this moment on it counts no more: a date and time with its offset, unquoted.
    until: String,
}

/// Programs that anyone may load.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ShapeEntry {
    /// Unique name; events print it.
    name: String,
    /// Out of "cgroup_device" and "socket_filter".
    program_types: Vec<String>,
    /// Helpers without effect that they may call. Default: [].
    calls: Option<Vec<String>>,
    /// Most maps: 0.
    #[schemars(range(max = 0))]
    maps: Option<u32>,
    /// Most instructions. Default: 4096.
    #[schemars(range(min = 1, max = 4096))]
    max_insns: Option<u32>,
}
