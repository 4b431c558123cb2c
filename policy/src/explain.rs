//! What a reason means, in the words of `docs/reasons.md`.

use crate::Reason;

/// The whole document; it is part of the program, so that a host without a browser has it.
const REASONS: &str = include_str!("../../docs/reasons.md");

/// The reason that a person names: `E401`, `401` or `unsigned`.
pub fn find(word: &str) -> Option<Reason> {
    let number = word.strip_prefix(['E', 'e']).unwrap_or(word);
    if let Ok(number) = number.parse() {
        return Reason::from_number(number);
    }
    let word = word.to_lowercase().replace('_', "-");
    Reason::ALL
        .iter()
        .copied()
        .find(|reason| reason.code() == word)
}

/// The code nearest to `word`, as `; did you mean …?`, or nothing.
pub fn suggest(word: &str) -> String {
    crate::spelling::did_you_mean(
        &word.to_lowercase(),
        Reason::ALL.iter().map(|reason| reason.code()),
    )
}

/// The entry of a reason, Markdown without its heading; empty only if the document lacks it.
pub fn entry(reason: Reason) -> &'static str {
    let heading = format!("\n### E{} `{}`\n", reason.number(), reason.code());
    let Some(start) = REASONS.find(&heading) else {
        return "";
    };
    let body = &REASONS[start + heading.len()..];
    let end = body.find("\n## ").unwrap_or(body.len());
    let end = body.find("\n### ").unwrap_or(end).min(end);
    body[..end].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_entry_of_four_parts_and_no_other_has() {
        for &reason in Reason::ALL {
            let entry = entry(reason);
            for part in [
                "**What happened.**",
                "**Why.**",
                "**What to do.**",
                "**Example.**",
            ] {
                assert_eq!(entry.matches(part).count(), 1, "{part} of {reason}");
            }
        }
        assert_eq!(REASONS.matches("\n### ").count(), Reason::ALL.len());
    }

    #[test]
    fn a_reason_is_found_by_number_and_by_word() {
        for word in ["E401", "e401", "401", "unsigned", "Unsigned"] {
            assert_eq!(find(word), Some(Reason::Unsigned), "{word}");
        }
        assert_eq!(find("no_rule"), Some(Reason::NoRule));
        for word in ["", "E", "E999", "nothing", "-1"] {
            assert_eq!(find(word), None, "{word}");
        }
        assert_eq!(suggest("unsinged"), "; did you mean `unsigned`?");
    }
}
