//! Keys in tokens: smart cards, HSMs, through the C library that their makers ship (PKCS#11).
//!
//! A key is named by a URI (RFC 7512). The library is loaded into this process, as every
//! program that uses PKCS#11 does; a [`super::plugin`] keeps it in a process of its own.

use std::{path::PathBuf, sync::Mutex};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
};
use policy::{
    key::{Algorithm, PublicKey},
    signer::{Sign, Signer},
};
use sha2::Digest as _;
use zeroize::Zeroizing;

use crate::{Failure, files};

/// Which key of which token, through which library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    module: Option<PathBuf>,
    token: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    pin_file: Option<PathBuf>,
}

impl Uri {
    /// Reads `pkcs11:token=…;object=…?module-path=…`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::usage(format!("the PKCS#11 URI: {why}")).with_remedy(
                "Write it as in `pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/LIBRARY.so`.",
            )
        };
        let rest = text.strip_prefix("pkcs11:").unwrap_or(text);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        let attributes = path.split(';').chain(query.split('&'));
        for attribute in attributes.filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| wrong(format!("{attribute:?} has no value")))?;
            let bytes = decoded(value).ok_or_else(|| wrong(format!("{value:?} is not encoded")))?;
            let text = String::from_utf8(bytes.clone());
            let text = || {
                text.clone()
                    .map_err(|_| wrong(format!("{name} is not UTF-8")))
            };
            match name {
                "token" => uri.token = Some(text()?),
                "serial" => uri.serial = Some(text()?),
                "object" => uri.object = Some(text()?),
                "id" => uri.id = Some(bytes),
                "type" if value == "private" => {}
                "module-path" => uri.module = Some(PathBuf::from(text()?)),
                "pin-source" => {
                    let place = text()?;
                    let file = place.strip_prefix("file:").unwrap_or(&place);
                    uri.pin_file = Some(PathBuf::from(file));
                }
                "pin-value" => {
                    return Err(Failure::usage(
                        "the PKCS#11 URI: a PIN on the command line is \
                                               everybody's",
                    )
                    .with_remedy(
                        "Give `pin-source=file:PATH`, --passphrase-file, or BPFSEAL_PASSPHRASE.",
                    ));
                }
                _ => return Err(wrong(format!("the attribute {name:?} is not known"))),
            }
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(wrong(
                "it names neither `object` nor `id` of a key".to_owned(),
            ));
        }
        Ok(uri)
    }

    /// The key, ready to sign; `pin` is asked for where the URI does not say it.
    pub fn signer(
        &self,
        pin: impl FnOnce() -> Result<Zeroizing<String>, Failure>,
    ) -> Result<Signer, Failure> {
        let library = self.library()?;
        let slot = self.slot(&library)?;
        let pin = match &self.pin_file {
            Some(path) => first_line(path)?,
            None => pin()?,
        };
        let session = library
            .open_ro_session(slot)
            .map_err(|error| failure("cannot open a session", &error))?;
        session
            .login(UserType::User, Some(&pin.as_str().into()))
            .map_err(|error| failure("cannot log in", &error))?;
        let private = self.find(&session, ObjectClass::PRIVATE_KEY, "private key")?;
        let public = self.find(&session, ObjectClass::PUBLIC_KEY, "public key")?;
        let public = read_public(&session, public)?;
        let algorithm = public.algorithm();
        let session = Mutex::new((session, private));
        let sign: Box<Sign> = Box::new(move |message| {
            let held = session.lock().map_err(|_| "the session broke".to_owned())?;
            let (session, key) = &*held;
            sign(session, *key, algorithm, message).map_err(|error| clause(&error))
        });
        Ok(Signer::external(public, sign))
    }

    fn library(&self) -> Result<Pkcs11, Failure> {
        let named = std::env::var_os(MODULE).filter(|path| !path.is_empty());
        let path = self.module.clone().or_else(|| named.map(PathBuf::from));
        let path = path.ok_or_else(|| {
            Failure::usage("the PKCS#11 URI names no library").with_remedy(format!(
                "Add `?module-path=/usr/lib/LIBRARY.so`, or set {MODULE}."
            ))
        })?;
        let library = Pkcs11::new(&path)
            .map_err(|error| failure(&format!("cannot load {}", path.display()), &error))?;
        library
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| failure(&format!("cannot start {}", path.display()), &error))?;
        Ok(library)
    }

    /// The one token that fits.
    fn slot(&self, library: &Pkcs11) -> Result<Slot, Failure> {
        let slots = library
            .get_slots_with_initialized_token()
            .map_err(|error| failure("cannot list the tokens", &error))?;
        let mut found = Vec::new();
        let mut names = Vec::new();
        for slot in slots {
            let token = library
                .get_token_info(slot)
                .map_err(|error| failure("cannot read a token", &error))?;
            names.push(token.label().to_owned());
            let is = |want: &Option<String>, got: &str| want.as_ref().is_none_or(|w| w == got);
            if is(&self.token, token.label()) && is(&self.serial, token.serial_number()) {
                found.push(slot);
            }
        }
        match found.as_slice() {
            [slot] => Ok(*slot),
            [] => Err(Failure::not_found(format!(
                "no token of that name; there are: {}",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            ))),
            several => Err(Failure::usage(format!("{} tokens fit", several.len()))
                .with_remedy("Name one by `token=` and `serial=`.")),
        }
    }

    /// The one object that fits.
    fn find(
        &self,
        session: &Session,
        class: ObjectClass,
        what: &str,
    ) -> Result<ObjectHandle, Failure> {
        let mut template = vec![Attribute::Class(class)];
        let label = self.object.as_ref();
        template.extend(label.map(|label| Attribute::Label(label.clone().into_bytes())));
        template.extend(self.id.clone().map(Attribute::Id));
        let found = session
            .find_objects(&template)
            .map_err(|error| failure("cannot look for the key", &error))?;
        match found.as_slice() {
            [object] => Ok(*object),
            [] => Err(
                Failure::not_found(format!("the token has no such {what}")).with_remedy(
                    "`pkcs11-tool --list-objects` shows what it has; the public key is needed too.",
                ),
            ),
            several => Err(
                Failure::usage(format!("{} objects fit the {what}", several.len()))
                    .with_remedy("Name it by `object=` and `id=`."),
            ),
        }
    }
}

fn sign(
    session: &Session,
    key: ObjectHandle,
    algorithm: Algorithm,
    message: &[u8],
) -> Result<Vec<u8>, Error> {
    // Tokens sign ECDSA digests, and give both numbers side by side (PKCS#11 3.1, 6.3.1).
    let ecdsa = |digest: &[u8]| session.sign(&Mechanism::Ecdsa, key, digest);
    match algorithm {
        Algorithm::EcdsaP256 => Ok(ecdsa_der(&ecdsa(&sha2::Sha256::digest(message))?)),
        Algorithm::EcdsaP384 => Ok(ecdsa_der(&ecdsa(&sha2::Sha384::digest(message))?)),
        Algorithm::Rsa => session.sign(&Mechanism::Sha256RsaPkcs, key, message),
        // `read_public` reads none of these.
        Algorithm::Ed25519 => Err(Error::NotSupported),
    }
}

/// The public key as PEM has it (SPKI, RFC 5280 and 5480).
fn read_public(session: &Session, object: ObjectHandle) -> Result<PublicKey, Failure> {
    let read = |kinds: &[AttributeType]| {
        session
            .get_attributes(object, kinds)
            .map_err(|error| failure("cannot read the public key", &error))
    };
    let spki = match read(&[AttributeType::KeyType])?.first() {
        Some(Attribute::KeyType(KeyType::EC)) => {
            let parts = read(&[AttributeType::EcParams, AttributeType::EcPoint])?;
            match parts.as_slice() {
                [Attribute::EcParams(curve), Attribute::EcPoint(point)] => ec_spki(curve, point),
                _ => None,
            }
        }
        Some(Attribute::KeyType(KeyType::RSA)) => {
            let parts = read(&[AttributeType::Modulus, AttributeType::PublicExponent])?;
            match parts.as_slice() {
                [
                    Attribute::Modulus(modulus),
                    Attribute::PublicExponent(exponent),
                ] => Some(rsa_spki(modulus, exponent)),
                _ => None,
            }
        }
        _ => None,
    };
    let spki = spki.ok_or_else(|| {
        Failure::refused(
            policy::Reason::BadKey,
            "the token's key is neither ECDSA P-256 or P-384 nor RSA",
        )
    })?;
    PublicKey::from_spki(&spki)
        .map_err(|error| Failure::refused(error.reason(), format!("the token's key: {error}")))
}

fn ec_spki(curve: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    // The point is an OCTET STRING within the attribute.
    let point = match point {
        [0x04, length, point @ ..] if usize::from(*length) == point.len() => point,
        [0x04, 0x81, length, point @ ..] if usize::from(*length) == point.len() => point,
        _ => return None,
    };
    let algorithm = der(0x30, &[EC_PUBLIC_KEY, curve].concat());
    let key = der(0x03, &[&[0], point].concat());
    Some(der(0x30, &[algorithm, key].concat()))
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let algorithm = der(0x30, &[RSA_ENCRYPTION, &[0x05, 0x00]].concat());
    let key = der(0x30, &[number(modulus), number(exponent)].concat());
    let key = der(0x03, &[vec![0], key].concat());
    der(0x30, &[algorithm, key].concat())
}

/// Both numbers of an ECDSA signature as ASN.1 has them.
fn ecdsa_der(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    der(0x30, &[number(r), number(s)].concat())
}

/// An INTEGER that is not negative.
fn number(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|&byte| byte != 0);
    let bytes = start.map_or(&[0][..], |start| &bytes[start..]);
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => der(0x02, &[&[0], bytes].concat()),
        _ => der(0x02, bytes),
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let start = length.iter().position(|&byte| byte != 0);
    let length = &length[start.unwrap_or(length.len() - 1)..];
    let mut out = vec![tag];
    match length {
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The bytes that `%41` stands for; `None`: a broken one.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let pair = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.extend(hex::decode(pair).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

fn first_line(path: &std::path::Path) -> Result<Zeroizing<String>, Failure> {
    let pin = Zeroizing::new(files::read_small(path, "cannot read the PIN from")?);
    let pin = std::str::from_utf8(&pin).unwrap_or_default();
    match pin.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(Failure::usage(format!("{} holds no PIN", path.display()))),
    }
}

fn failure(doing: &str, error: &Error) -> Failure {
    let failure = Failure::usage(format!("PKCS#11: {doing}: {}", clause(error)));
    match error {
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange, _) => {
            failure.with_remedy("Check the PIN: most tokens lock after a few wrong ones.")
        }
        _ => failure,
    }
}

fn clause(error: &Error) -> String {
    match error {
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange, _) => "the PIN is wrong".into(),
        Error::Pkcs11(RvError::PinLocked, _) => "the PIN is locked".into(),
        other => other.to_string(),
    }
}

/// Names the library, where a URI does not.
const MODULE: &str = "BPFSEAL_PKCS11_MODULE";
/// `id-ecPublicKey`, RFC 5480.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `rsaEncryption`, RFC 8017.
const RSA_ENCRYPTION: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_a_key() {
        let uri = Uri::parse(
            "pkcs11:token=Acme%20HSM;object=release;id=%01%ff;type=private\
             ?module-path=/usr/lib/x.so&pin-source=file:/run/pin",
        );
        let want = Uri {
            module: Some("/usr/lib/x.so".into()),
            token: Some("Acme HSM".into()),
            serial: None,
            object: Some("release".into()),
            id: Some(vec![1, 0xff]),
            pin_file: Some("/run/pin".into()),
        };
        assert_eq!(uri.unwrap(), want);
        for (text, words) in [
            ("pkcs11:token=x", "neither `object` nor `id`"),
            ("pkcs11:object=a?pin-value=1234", "everybody's"),
            ("pkcs11:object=a;slot-id=1", "\"slot-id\" is not known"),
            ("pkcs11:object=%4", "is not encoded"),
            ("pkcs11:object", "has no value"),
        ] {
            let failure = Uri::parse(text).unwrap_err();
            assert!(
                failure.message.contains(words),
                "{text}: {}",
                failure.message
            );
        }
    }

    #[test]
    fn numbers_are_written_as_asn_1_has_them() {
        assert_eq!(number(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(number(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(number(&[0, 0]), [2, 1, 0]);
        assert_eq!(der(4, &[7; 200])[..4], [4, 0x81, 200, 7]);
        let der = ecdsa_der(&[0, 1, 0x80, 0]);
        assert_eq!(der, [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]);
    }
}
