//! Byte ranges: `Range` on downloads (RFC 9110, section 14) and `Content-Range` on chunks
//! (distribution-spec 1.1, "Pushing a blob in chunks").

/// Bytes `start..end` of a blob, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// One after the last byte.
    pub end: u64,
}

/// What a `Range` header asks of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// No range, or one that RFC 9110 lets a server ignore: the whole blob.
    Whole,
    /// One satisfiable range: 206.
    Part(Span),
    /// Nothing of the blob is in the range: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a blob of `size` bytes.
///
/// Several ranges in one header are ignored, as RFC 9110 allows: no registry client
/// sends them and answering them costs a multipart body. A range that ends before it
/// starts is refused, as the conformance suite wants.
pub fn asked(header: Option<&str>, size: u64) -> Asked {
    let Some(set) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = set.trim().split_once('-') else {
        return Asked::Whole;
    };
    let part = |start: u64, end: u64| {
        if start < end {
            Asked::Part(Span { start, end })
        } else {
            Asked::Unsatisfiable
        }
    };
    match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => part(first, size),
        (Some(first), Some(last)) => part(first, last.saturating_add(1).min(size)),
        (None, Some(suffix)) if first.is_empty() => part(size.saturating_sub(suffix), size),
        _ => Asked::Whole,
    }
}

/// Reads a chunk's `Content-Range`: `first-last`, both inclusive. `bytes first-last/total`
/// is understood too, because generic HTTP clients write it.
pub fn chunk(header: &str) -> Option<Span> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (start, last) = (number(first)?, number(last)?);
    let end = last.checked_add(1)?;
    (start < end).then_some(Span { start, end })
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads() {
        let part = |start, end| Asked::Part(Span { start, end });
        for (header, size, want) in [
            (None, 2048, Asked::Whole),
            (Some("bytes=500-1499"), 2048, part(500, 1500)),
            (Some("bytes=500-"), 2048, part(500, 2048)),
            (Some("bytes=-500"), 2048, part(1548, 2048)),
            (Some("bytes=-5000"), 2048, part(0, 2048)),
            (Some("bytes=2000-5000"), 2048, part(2000, 2048)),
            (Some("bytes=0-0"), 1, part(0, 1)),
            (Some("bytes=0-18446744073709551615"), 10, part(0, 10)),
            (Some("bytes=500-0"), 2048, Asked::Unsatisfiable),
            (Some("bytes=5000-10000"), 2048, Asked::Unsatisfiable),
            (Some("bytes=2048-"), 2048, Asked::Unsatisfiable),
            (Some("bytes=-0"), 2048, Asked::Unsatisfiable),
            (Some("bytes=0-"), 0, Asked::Unsatisfiable),
            (Some("bytes=0-1,5-6"), 2048, Asked::Whole),
            (Some("bytes=-"), 2048, Asked::Whole),
            (Some("bytes=a-b"), 2048, Asked::Whole),
            (Some("bytes=99999999999999999999-"), 2048, Asked::Whole),
            (Some("items=0-1"), 2048, Asked::Whole),
        ] {
            assert_eq!(asked(header, size), want, "{header:?} of {size}");
        }
    }

    #[test]
    fn chunks() {
        for (header, want) in [
            ("0-9", Some(Span { start: 0, end: 10 })),
            ("bytes 10-19/20", Some(Span { start: 10, end: 20 })),
            ("10-10", Some(Span { start: 10, end: 11 })),
            ("9-0", None),
            ("-9", None),
            ("0-", None),
            ("x-y", None),
            ("", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(chunk(header), want, "{header}");
        }
    }
}
