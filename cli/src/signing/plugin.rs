//! Keys in somebody else's hands: a program that says its public key and signs.
//!
//! The protocol is in `docs/signing.md`: one JSON object on the program's standard input,
//! one on its standard output.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use policy::key::{Algorithm, PublicKey};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::Failure;

/// A program, and the name of a key that it knows.
#[derive(Clone, Debug)]
pub struct Plugin {
    program: PathBuf,
    key: String,
}

#[derive(Deserialize)]
struct Reply {
    public_key: Option<String>,
    signature: Option<String>,
    error: Option<String>,
}

impl Plugin {
    /// `PROGRAM#KEY`; a program without a slash is looked for in `PATH`.
    pub fn parse(spec: &str) -> Result<Self, Failure> {
        let (program, key) = spec.split_once('#').unwrap_or((spec, ""));
        if program.is_empty() {
            return Err(Failure::usage(
                "a plugin is named as in `--key plugin:PROGRAM#KEY`",
            ));
        }
        Ok(Self {
            program: PathBuf::from(program),
            key: key.to_owned(),
        })
    }

    /// Asks for the public key.
    pub fn public_key(&self) -> Result<PublicKey, Failure> {
        let reply = self
            .ask(json!({ "command": "public-key" }))
            .map_err(|error| self.failure(&error))?;
        let pem = reply
            .public_key
            .ok_or_else(|| self.failure("it named no public key"))?;
        PublicKey::from_pem(pem.as_bytes()).map_err(|error| {
            Failure::refused(
                error.reason(),
                format!("the public key of {}: {error}", self.program.display()),
            )
        })
    }

    /// Asks for a signature over `message`. Hashing is done here, but for Ed25519, which
    /// signs the message itself.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let public = self.public_key().map_err(|failure| failure.message)?;
        let mut request = json!({
            "command": "sign",
            "algorithm": public.algorithm().name(),
        });
        match public.algorithm() {
            Algorithm::Ed25519 => request["message"] = Value::from(BASE64.encode(message)),
            Algorithm::EcdsaP384 => {
                request["hash"] = Value::from("sha384");
                request["digest"] = Value::from(BASE64.encode(sha2::Sha384::digest(message)));
            }
            Algorithm::EcdsaP256 | Algorithm::Rsa => {
                request["hash"] = Value::from("sha256");
                request["digest"] = Value::from(BASE64.encode(sha2::Sha256::digest(message)));
            }
        }
        let reply = self.ask(request)?;
        let signature = reply.signature.ok_or("it returned no signature")?;
        BASE64
            .decode(signature)
            .map_err(|_| "its signature is not base64".to_owned())
    }

    fn ask(&self, mut request: Value) -> Result<Reply, String> {
        request["version"] = Value::from(1);
        request["key"] = Value::from(self.key.clone());
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("it does not start: {error}"))?;
        if let Some(mut input) = child.stdin.take() {
            // A program that answers without reading is none of our business.
            let _ = input.write_all(format!("{request}\n").as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| format!("it cannot be heard: {error}"))?;
        let reply = serde_json::from_slice::<Reply>(&output.stdout);
        match reply {
            Ok(Reply {
                error: Some(error), ..
            }) => Err(error),
            Ok(_) if !output.status.success() => Err(format!("it ended with {}", output.status)),
            Ok(reply) => Ok(reply),
            Err(_) if !output.status.success() => Err(format!("it ended with {}", output.status)),
            Err(error) => Err(format!("its answer cannot be parsed: {error}")),
        }
    }

    fn failure(&self, error: &str) -> Failure {
        Failure::usage(format!(
            "the signer plugin {}: {error}",
            self.program.display()
        ))
        .with_remedy("docs/signing.md says what a signer plugin answers.")
    }
}
