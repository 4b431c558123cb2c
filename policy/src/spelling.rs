//! "Did you mean": the nearest word that would have been right.

/// `; did you mean `X`?` where one candidate is near enough, else nothing.
///
/// Near is an edit distance of at most a third of the word, which lets `program_type` find
/// `program_types` and keeps `xdp` away from `lsm`.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    // A word that long is no slip of the finger, and the distance costs its square.
    if word.len() > 64 {
        return String::new();
    }
    let limit = word.len().div_ceil(3).min(word.len().saturating_sub(1));
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| format!("; did you mean `{candidate}`?"))
        .unwrap_or_default()
}

/// Edits that lead from one word to the other: letters added, removed, replaced, or
/// neighbours exchanged (optimal string alignment, three rows at a time).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replaced = above[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            let exchanged =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if exchanged {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_offered_and_far_ones_are_not() {
        let words = ["program_types", "signed_by", "scope"];
        assert_eq!(
            did_you_mean("program_type", words),
            "; did you mean `program_types`?"
        );
        assert_eq!(
            did_you_mean("signedby", words),
            "; did you mean `signed_by`?"
        );
        assert_eq!(did_you_mean("scop", words), "; did you mean `scope`?");
        assert_eq!(did_you_mean("colour", words), "");
        assert_eq!(did_you_mean("xpd", ["xdp"]), "; did you mean `xdp`?");
        assert_eq!(did_you_mean("c", ["a"]), "");
        assert_eq!(did_you_mean(&"x".repeat(100_000), words), "");
    }
}
