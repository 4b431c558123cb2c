//! Signatures of tools that are not checked here, told by how they begin.

use std::path::Path;

use policy::Reason;

use crate::Failure;

/// Refuses what is no Sigstore bundle but a signature of minisign, signify, GPG or ssh.
pub fn refuse(bytes: &[u8], path: &Path) -> Result<(), Failure> {
    let Some(tool) = tool(bytes) else {
        return Ok(());
    };
    Err(Failure::refused(
        Reason::ForeignSignature,
        format!("{} is a signature by {tool}", path.display()),
    )
    .with_remedy(format!(
        "Signatures by {tool} carry no statement of what they are for and are not checked here; \
         sign the file with `bpfseal sign-blob`, `cosign sign-blob` or a key of your organisation."
    )))
}

/// Which tool made it, if its first bytes say so.
pub fn tool(bytes: &[u8]) -> Option<&'static str> {
    let starts = |text: &str| bytes.starts_with(text.as_bytes());
    if starts("-----BEGIN PGP") {
        Some("GPG")
    } else if starts("-----BEGIN SSH SIGNATURE") {
        Some("ssh-keygen")
    } else if starts("untrusted comment:") {
        Some("minisign or signify")
    } else if is_binary_pgp(bytes) {
        Some("GPG")
    } else {
        None
    }
}

/// Whose private key it is, if a tool's that is not used here.
pub fn key_of(bytes: &[u8]) -> Option<&'static str> {
    let starts = |text: &str| bytes.starts_with(text.as_bytes());
    if starts("-----BEGIN PGP") {
        Some("GPG; export is not possible, make one with `bpfseal keygen`")
    } else if starts("-----BEGIN OPENSSH") {
        Some("ssh; convert it: ssh-keygen -p -m PKCS8 -f KEY")
    } else if starts("untrusted comment:") {
        Some("minisign or signify; make one with `bpfseal keygen`")
    } else {
        None
    }
}

/// An OpenPGP packet with tag 2, signature (RFC 9580, section 4.2), and version 3 to 6.
fn is_binary_pgp(bytes: &[u8]) -> bool {
    let version = match bytes {
        // Old format: length of one or two bytes.
        [0x88, _, version, ..] | [0x89, _, _, version, ..] => version,
        // New format: length of one or two bytes.
        [0xc2, 0..=191, version, ..] | [0xc2, 192..=223, _, version, ..] => version,
        _ => return false,
    };
    (3..=6).contains(version)
}

#[cfg(test)]
mod tests {
    use super::tool;

    #[test]
    fn knows_signatures_by_how_they_begin() {
        for (bytes, want) in [
            (b"-----BEGIN PGP SIGNATURE-----\n".as_slice(), Some("GPG")),
            (b"\x88\x75\x04\x00", Some("GPG")),
            (b"\x89\x01\x33\x04\x00", Some("GPG")),
            (b"\xc2\xc1\x00\x04", Some("GPG")),
            (
                b"untrusted comment: signature from minisign secret key\n",
                Some("minisign or signify"),
            ),
            (b"-----BEGIN SSH SIGNATURE-----\n", Some("ssh-keygen")),
            (b"{\"mediaType\":", None),
            (b"", None),
        ] {
            assert_eq!(tool(bytes), want, "{bytes:?}");
        }
    }
}
