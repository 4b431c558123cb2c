//! OIDC identity tokens: read, never printed.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Failure, files};

/// A token (a JWT), and whom it names.
pub struct Token {
    /// As it goes to the certificate authority.
    pub text: Zeroizing<String>,
    /// What has to be signed to show that the key is ours: e-mail address or subject.
    pub subject: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    email: Option<String>,
    email_verified: Option<serde_json::Value>,
}

/// A token as it was given: the text itself, or a file that holds it.
pub fn given(text: &str) -> Result<Token, Failure> {
    if !text.contains('.') || Path::new(text).is_file() {
        let path = Path::new(text);
        let bytes = Zeroizing::new(files::read_small(path, "cannot read the identity token")?);
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| Failure::usage("the identity token is not text"))?;
        return parse(text.trim());
    }
    parse(text.trim())
}

/// Reads the claims. Whether the token is genuine is for the authority to say.
pub fn parse(text: &str) -> Result<Token, Failure> {
    let malformed = |why: &str| {
        Failure::usage(format!("the identity token {why}"))
            .with_remedy("Give an OIDC token (a JWT) whose audience is \"sigstore\".")
    };
    let mut parts = text.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("has not three parts"));
    };
    let claims = URL_SAFE_NO_PAD
        .decode(claims.trim_end_matches('='))
        .map_err(|_| malformed("is not base64url"))?;
    let claims: Claims =
        serde_json::from_slice(&claims).map_err(|_| malformed("holds no claims"))?;
    let unverified = match &claims.email_verified {
        Some(serde_json::Value::Bool(verified)) => !verified,
        Some(serde_json::Value::String(verified)) => verified != "true",
        _ => false,
    };
    if claims.email.is_some() && unverified {
        return Err(malformed("names an e-mail address that nobody verified"));
    }
    let subject = claims
        .email
        .or(claims.sub)
        .ok_or_else(|| malformed("names nobody"))?;
    Ok(Token {
        text: Zeroizing::new(text.to_owned()),
        subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_subject_is_what_the_authority_asks_to_be_signed() {
        for (claims, want) in [
            (
                r#"{"sub":"repo:a/b:ref:refs/heads/main"}"#,
                Ok("repo:a/b:ref:refs/heads/main"),
            ),
            (
                r#"{"sub":"1","email":"a@b.c","email_verified":true}"#,
                Ok("a@b.c"),
            ),
            (r#"{"sub":"1","email":"a@b.c"}"#, Ok("a@b.c")),
            (
                r#"{"sub":"1","email":"a@b.c","email_verified":false}"#,
                Err("the identity token names an e-mail address that nobody verified"),
            ),
            ("{}", Err("the identity token names nobody")),
            ("[", Err("the identity token holds no claims")),
        ] {
            let got = parse(&jwt(claims)).map(|token| token.subject);
            assert_eq!(
                got.map_err(|f| f.message),
                want.map(str::to_owned).map_err(str::to_owned)
            );
        }
        assert!(parse("one.two").is_err());
    }
}
