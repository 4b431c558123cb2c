//! Certificates as DER, by hand: what a certificate authority writes (RFC 5280).

use policy::signer::Signer;

use super::{now, sign};

/// Both numbers of a P-256 signature at full length, from its DER.
pub(super) fn fixed(der: &[u8]) -> Vec<u8> {
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let size = usize::from(rest[1]);
        let number = &rest[2..2 + size];
        let number = &number[number.len().saturating_sub(32)..];
        fixed.resize(fixed.len() + 32 - number.len(), 0);
        fixed.extend_from_slice(number);
        rest = &rest[2 + size..];
    }
    fixed
}

/// A certificate's content (RFC 5280), valid from a minute ago for ten.
pub(super) fn to_be_signed(
    issuer: &[u8],
    subject: &[u8],
    spki: &[u8],
    extensions: &[Vec<u8>],
) -> Vec<u8> {
    let parts: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    let validity = [time(now() - 60), time(now() + 540)].concat();
    tlv(
        0x30,
        &[
            &tlv(0xa0, &[&[2, 1, 2]]),
            &[2, 2, 0x10, 1],
            ECDSA_SHA256,
            issuer,
            &tlv(0x30, &[&validity]),
            subject,
            spki,
            &tlv(0xa3, &[&tlv(0x30, &parts)]),
        ],
    )
}

pub(super) fn signed(tbs: &[u8], by: &Signer) -> Vec<u8> {
    let signature = sign(by, tbs);
    tlv(0x30, &[tbs, ECDSA_SHA256, &tlv(3, &[&[0], &signature])])
}

pub(super) fn name(common: &str) -> Vec<u8> {
    let attribute = tlv(
        0x30,
        &[&[6, 3, 0x55, 4, 3], &tlv(0x0c, &[common.as_bytes()])],
    );
    tlv(0x30, &[&tlv(0x31, &[&attribute])])
}

pub(super) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[&tlv(6, &[oid]), critical, &tlv(4, &[value])])
}

/// `UTCTime` of a second since 1970.
pub(super) fn time(seconds: u64) -> Vec<u8> {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date (proleptic Gregorian), by eras of 400 years from 0000-03-01.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let text = format!(
        "{year:04}{month:02}{date:02}{:02}{:02}{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    );
    // Before 2050 the year has two digits (RFC 5280, 4.1.2.5).
    tlv(0x17, &[&text.as_bytes()[2..]])
}

pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(length as u8),
        0x80..0x100 => der.extend([0x81, length as u8]),
        _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    der.extend(content);
    der
}

/// `AlgorithmIdentifier` of ECDSA with SHA-256.
pub(super) const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
