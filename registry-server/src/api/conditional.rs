//! `If-Match` and `If-None-Match` (RFC 9110, section 13), with digests as entity tags.

use http::{HeaderMap, header};

use crate::{
    digest::Digest,
    error::{Code, OciError},
    metadata::Condition,
};

/// The entity tag of content.
pub fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether a client that asks for `digest` already has it: the answer is 304.
pub fn has(headers: &HeaderMap, digest: &Digest) -> bool {
    match tags(headers, header::IF_NONE_MATCH) {
        Ok(Some(Tags::Any)) => true,
        Ok(Some(Tags::Of(digests))) => digests.iter().any(|tag| *tag == digest.to_string()),
        _ => false,
    }
}

/// What a change of a tag is conditional on.
pub fn condition(headers: &HeaderMap) -> Result<Condition, OciError> {
    let wanted = tags(headers, header::IF_MATCH)?;
    let unwanted = tags(headers, header::IF_NONE_MATCH)?;
    Ok(match (wanted, unwanted) {
        (None, None) => Condition::Always,
        (Some(Tags::Any), None) => Condition::Present,
        (Some(Tags::Of(digests)), None) => Condition::At(digests),
        (None, Some(Tags::Any)) => Condition::Absent,
        (None, Some(Tags::Of(digests))) => Condition::NotAt(digests),
        (Some(_), Some(_)) => {
            return Err(malformed(
                "If-Match and If-None-Match exclude each other here",
            ));
        }
    })
}

enum Tags {
    Any,
    Of(Vec<String>),
}

fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Tags>, OciError> {
    let mut digests = Vec::new();
    let mut seen = false;
    for value in headers.get_all(name) {
        seen = true;
        let text = value
            .to_str()
            .map_err(|_| malformed("an entity tag is not text"))?;
        for tag in text.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Some(Tags::Any));
            }
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let digest = quoted.ok_or_else(|| malformed("an entity tag is not quoted"))?;
            digests.push(digest.to_owned());
        }
    }
    Ok(seen.then_some(Tags::Of(digests)))
}

fn malformed(message: &str) -> OciError {
    OciError::new(Code::Unsupported, message).status(http::StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let at = |digests: &[&str]| digests.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
        for (lines, want) in [
            (&[][..], Some(Condition::Always)),
            (&[("if-none-match", "*")], Some(Condition::Absent)),
            (&[("if-match", "*")], Some(Condition::Present)),
            (
                &[("if-match", "\"a\", W/\"b\"")],
                Some(Condition::At(at(&["a", "b"]))),
            ),
            (
                &[("if-none-match", "\"a\"")],
                Some(Condition::NotAt(at(&["a"]))),
            ),
            (&[("if-match", "a")], None),
            (&[("if-match", "*"), ("if-none-match", "*")], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(condition(&headers).ok(), want, "{lines:?}");
        }
    }

    #[test]
    fn a_condition_holds_or_not() {
        let a = || vec!["a".to_owned()];
        for (condition, at_a, at_b, absent) in [
            (Condition::Always, true, true, true),
            (Condition::Absent, false, false, true),
            (Condition::Present, true, true, false),
            (Condition::At(a()), true, false, false),
            (Condition::NotAt(a()), false, true, true),
        ] {
            let got = [Some("a"), Some("b"), None].map(|at| condition.holds(at));
            assert_eq!(got, [at_a, at_b, absent], "{condition:?}");
        }
    }
}
