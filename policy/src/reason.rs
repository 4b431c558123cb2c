//! The numbered reasons for refusing, shared by every program of bpfseal.
//!
//! A number is for ever: it stands in events, exit messages, OCI errors and runbooks.
//! The kernel side knows the numbers from 400 on through `lsm-enforcer/bpf/reason.h`,
//! and a test there holds the two lists together. `docs/reasons.md` has one entry each.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($name:ident = $number:literal, $code:literal, $what:literal, $remedy:literal;)*) => {
        /// Why something was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $what] $name = $number,)*
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// The stable word for machines, as in `unsigned`.
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            /// One lower-case clause that says what was wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Reason::$name => $what,)* }
            }

            /// One sentence that says what to do.
            pub const fn remedy(self) -> &'static str {
                match self { $(Reason::$name => $remedy,)* }
            }
        }
    };
}

reasons! {
    // 1xx: the bundle is not what it says (publisher or transport at fault).
    MalformedObject = 101, "malformed-object", "the BPF object cannot be parsed",
        "Rebuild the object; `bpfseal inspect` names the section or offset.";
    MalformedBundle = 102, "malformed-bundle", "the bundle is not a valid OCI layout or manifest",
        "Pack it again with `bpfseal pack`.";
    DigestMismatch = 103, "digest-mismatch", "bytes differ from the digest that names them",
        "Fetch it again; if it stays so, the registry or the publisher is at fault.";
    InventoryMismatch = 104, "inventory-mismatch", "the recorded inventory differs from the objects",
        "Pack it again from the objects; an inventory is never edited.";
    LimitExceeded = 105, "limit-exceeded", "a size or count is over the limit",
        "Split the bundle, or ask why it is that large.";
    NotABundle = 106, "not-a-bundle", "the artifact is of another type",
        "Check the reference; only bpfseal bundles can be verified as such.";

    // 2xx: signatures.
    NoSignature = 201, "no-signature", "nothing signs it",
        "Sign it: `bpfseal sign`, or `bpfseal enroll` for a vendor's tool.";
    BadSignature = 202, "bad-signature", "a signature does not fit the bytes",
        "Fetch it again; if it stays so, it was changed after signing.";
    UntrustedSigner = 203, "untrusted-signer", "every valid signature is by somebody the policy does not name",
        "Add the signer's key to the policy, or have a trusted party sign.";
    WrongSubject = 204, "wrong-subject", "the signature is about another artifact",
        "Sign this digest.";
    WrongPredicate = 205, "wrong-predicate", "the statement is not a signature but some other attestation",
        "Sign it: an attestation alone admits nothing.";
    WeakAlgorithm = 206, "weak-algorithm", "the signature algorithm or key is too weak",
        "Sign with ECDSA P-256, P-384, Ed25519 or RSA of 2048 bits or more.";
    MalformedSignature = 207, "malformed-signature", "the signature bundle cannot be parsed",
        "Sign again with a current tool.";
    BadKey = 208, "bad-key", "the key cannot be read",
        "Give a PEM public key (SPKI) or PKCS#8 private key.";
    WrongIdentity = 209, "wrong-identity", "the certificate is for another identity or issuer",
        "Name the identity and issuer that the message shows, if it is the one that you trust.";
    BadCertificate = 210, "bad-certificate", "the signing certificate does not lead to a trusted authority or was not valid",
        "Sign again with a certificate of a trusted authority; is the trusted root the right one?";
    BadLogEntry = 211, "bad-log-entry", "the transparency log's proof is missing or does not hold",
        "Sign again; is the trusted root the one of the log that was used?";
    NoTrustedTime = 212, "no-trusted-time", "no trusted time says when it was signed",
        "Sign again with a time-stamp authority or log of the trusted root.";
    BadTrustRoot = 213, "bad-trust-root", "the trusted root cannot be used",
        "Give a `trusted_root.json`, or leave it out for the public-good instance's.";
    ForeignSignature = 214, "foreign-signature", "it was signed by a tool whose signatures are not checked here",
        "Sign it with `bpfseal sign`, cosign or notation.";

    // 3xx: the policy decides against it.
    NoRule = 301, "no-rule", "no rule's scope covers it",
        "Add a rule for this scope, or correct the reference.";
    Threshold = 302, "threshold", "fewer distinct trusted signers than the rule asks for",
        "Have another of the rule's signers sign it.";
    ProgramType = 303, "program-type", "the rule does not allow this program type",
        "Add the type to the rule's `program_types` if it belongs there.";
    LoadTarget = 304, "load-target", "the rule does not allow this load target",
        "Add the target to the rule's `load_targets` if it belongs there.";
    ForbiddenCall = 305, "forbidden-call", "the program calls what the rule forbids",
        "Remove the call from the program, or from the rule's `forbid_calls`.";
    Tunable = 306, "tunable", "the policy's tunable is not one of the bundle's",
        "Name it at pack time with `--tunable`.";
    MinVersion = 307, "min-version", "the version is older than the rule allows",
        "Use a newer version.";
    TooOld = 308, "too-old", "the signature is older than the rule allows",
        "Sign it again.";
    Revoked = 309, "revoked", "it was revoked",
        "Use a version that was not revoked.";
    MissingAttestation = 310, "missing-attestation", "a required attestation is missing",
        "Attach the attestation that the rule requires.";
    Unsupported = 311, "unsupported", "the policy asks for what this version cannot check",
        "Remove the field, or update bpfseal; nothing is admitted by a check that was not made.";
    BadPolicy = 312, "bad-policy", "the policy file cannot be used",
        "Correct it; `bpfseal policy check` names every line.";
    AttachPoint = 313, "attach-point", "the rule does not allow this attach point",
        "Add the attach point to the rule's `attach` if it belongs there.";
    Condition = 314, "condition", "a condition of the rule does not hold",
        "The message has the condition: change what it looks at, or the rule.";
    ConditionError = 315, "condition-error", "a condition of the rule cannot be evaluated",
        "Correct the condition: ask `has(x.y)` before a field that may be missing.";

    // 4xx: gate 1, before the verifier. Known to the kernel side.
    Unsigned = 401, "unsigned", "no admitted program has these instructions",
        "Admit the bundle that holds it: `bpfseal-enforcer admit`; vendor's tool: `bpfseal enroll` first.";
    OtherType = 402, "other-type", "these instructions are admitted, but under another type, attach type or target",
        "Load it as its publisher signed it.";
    InstructionDiffers = 403, "instruction-differs", "an instruction differs from the admitted program",
        "Somebody changed the program, or the loader lays it out in another way; `bpfseal-enforcer events --json` has its first words.";
    MapReference = 404, "map-reference", "an instruction refers to another map than the admitted program does",
        "Load it with an unmodified loader.";
    ModuleBtf = 405, "module-btf", "it refers to a kernel module's BTF for which nothing is admitted",
        "Admit the program while the module is loaded; after another version of the module came, `bpfseal-enforcer reload`.";
    KernelCore = 406, "kernel-core", "it asks the kernel to relocate after the check, and is not admitted in this form",
        "Admit the object; before 6.18, load it with libbpf instead of the light skeleton.";
    LoadFlags = 407, "load-flags", "the load flags differ from the admitted program's",
        "Load it without test or alignment flags.";
    MapIndex = 408, "map-index", "it names maps by index into a table, and is not admitted in this form",
        "Admit the object and its light skeleton; before 6.18, load it with libbpf instead.";
    NoVerdict = 409, "no-verdict", "no verdict was recorded for it, so it is refused",
        "Try again, one load at a time; if it stays so, `bpfseal-enforcer status` says whether the gate is whole.";
    Unreadable = 410, "unreadable", "its instructions could not be read by the gate",
        "Is lockdown=confidentiality set? The gate cannot work there.";
    SharedFiles = 411, "shared-files", "its maps could be exchanged during the load by another thread",
        "Load it from a single-threaded program, or set net.core.bpf_jit_harden to 1.";
    RecordsFull = 412, "records-full", "the gate's table of records is full",
        "Unload programs that nobody needs: `bpftool prog` lists them.";
    AttachProgram = 413, "attach-program", "it would replace or trace another BPF program",
        "Only a rule that names the target allows that.";
    KernelKeyring = 420, "kernel-keyring", "the kernel has verified its signature by a keyring that the policy does not name",
        "Name the keyring in `[kernel_keyring]`, if nobody can add keys to it at will; or admit the bundle.";
    GeneratorLimit = 430, "generator-limit", "a generator's program is outside the limits that the policy gives it",
        "The message says which limit; widen it in the policy's `[[generator]]`, or bring a permit where it wants one.";

    // 5xx: gate 2, after the verifier, before a file descriptor exists.
    MapCount = 501, "map-count", "it uses more or fewer maps than the admitted program",
        "Load it with an unmodified loader.";
    MapKind = 502, "map-kind", "one of its maps is of another type than signed",
        "Load it with an unmodified loader.";
    MapSize = 503, "map-size", "one of its maps has another size than the rule allows",
        "Allow the size in the rule's `map_sizes`.";
    MapFlags = 504, "map-flags", "one of its maps has other flags than signed",
        "Load it with an unmodified loader.";
    NotFrozen = 505, "not-frozen", "its read-only data is not frozen",
        "Load it with a loader that freezes read-only data (libbpf, cilium/ebpf, aya do).";
    DataDiffers = 506, "data-differs", "its read-only data differs from what was signed, outside tunables",
        "Declare the variable tunable at pack time, or load it with the signed value.";
    TunableRange = 507, "tunable-range", "a tunable's value is outside what the rule allows",
        "Use an allowed value, or widen the rule's `tunables`.";
    AttachTarget = 508, "attach-target", "it was loaded for another attach target than measured",
        "Load it as its publisher signed it.";
    ExceptionCallback = 509, "exception-callback", "it has another exception callback than signed",
        "Build it without exceptions (`bpf_throw`): no program that may throw is let in.";
    CoreResult = 510, "core-result", "what the kernel made of it by relocating is not the admitted program",
        "Somebody changed the light skeleton's relocations; make it anew from the signed object.";

    // 6xx: gate 3 and self-protection.
    ProbeAttach = 601, "probe-attach", "a loader's probe program may not be attached",
        "Load a real program.";
    OwnObject = 602, "own-object", "a map or program of the gate itself was asked for",
        "Use `bpfseal-enforcer`; nothing else may touch the gate.";
    OwnPin = 603, "own-pin", "a pin of the gate would be removed or covered",
        "Use `bpfseal-enforcer disarm` with a permit.";
    Ftrace = 604, "ftrace", "kernel.ftrace_enabled would switch the gate off",
        "Leave it at 1 while the gate is armed.";
    Trace = 605, "trace", "the daemon may not be traced",
        "Stop the daemon first; the gate stays armed.";
    DaemonFile = 606, "daemon-file", "the daemon's executable may not be changed while the gate is armed",
        "Put the new version in its place with `bpfseal-enforcer upgrade`, as its package does.";
    AttachPlace = 607, "attach-place", "its rule does not allow it to be attached there",
        "Attach it where the rule's `attach` allows, or widen the rule.";
    KernelMemory = 608, "kernel-memory", "it would open a way into kernel memory that the policy closes",
        "The name is the switch in the policy's `[protect]`; whoever needs it opens it there.";
    GeneratorFile = 609, "generator-file", "a generator's executable or library would be written",
        "Put the new version in its place by renaming, as package managers do, with its digest in the policy.";
    RevokedAttach = 610, "revoked-attach", "it was revoked, and may not be attached any more",
        "Use a version that was not revoked; `bpfseal-enforcer status` names who holds this one.";

    // 7xx: command of the gate.
    BadAuthority = 701, "bad-authority", "the policy or permit is not signed by the pinned authority",
        "Sign it with the authority's key: `bpfseal policy sign`, `bpfseal permit`.";
    OlderPolicy = 702, "older-policy", "the policy's version is lower than the one in force",
        "Raise `version`, or bring a permit for the downgrade.";
    NeedsPermit = 703, "needs-permit", "this needs a permit signed by the authority",
        "Ask the authority's holder: `bpfseal permit`.";
    PermitScope = 704, "permit-scope", "the permit is for another host, action or time",
        "Ask for one that fits; the message says what it must name.";
    CannotEnforce = 705, "cannot-enforce", "this kernel cannot enforce",
        "The message says which condition fails and how to meet it.";
    OlderRevocation = 706, "older-revocation", "the revocation list is older than the one in force, or is missing",
        "Bring the newest list back: `bpfseal-enforcer revoke LIST`.";
    KernelSignature = 707, "kernel-signature", "the kernel does not accept the loader's signature",
        "Pack with `--kernel-key` and a certificate that is in the keyring that `--keyring` names.";
    OlderProbes = 708, "older-probes", "the list of probe programs is older than the one in force",
        "Bring the newest list: `bpfseal-enforcer probes LIST`.";
    NextDaemon = 709, "next-daemon", "the file may not take the place of the enforcer's own",
        "Put its SHA-256 under `[daemon]` of a policy that the authority signs; the message says which it is.";
}

impl Reason {
    /// The number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The reason with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.number() == number)
    }
}

/// `E401 unsigned: no admitted program has these instructions`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{} {}: {}", self.number(), self.code(), self.what())
    }
}

/// As its code.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_lead_back() {
        for pair in Reason::ALL.windows(2) {
            assert!(
                pair[0].number() < pair[1].number(),
                "{:?} before {:?}",
                pair[0],
                pair[1]
            );
        }
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason.number()), Some(reason));
        }
        assert_eq!(Reason::from_number(0), None);
    }

    #[test]
    fn codes_are_distinct_words() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn prints_number_code_and_clause() {
        assert_eq!(
            Reason::Unsigned.to_string(),
            "E401 unsigned: no admitted program has these instructions"
        );
    }
}
