//! What was meant by a word that is not known.

/// `, did you mean …?` when one of the words is near enough.
pub(crate) fn suggestion(text: &str, words: &[&str]) -> String {
    nearest(text, words).map_or_else(String::new, |word| format!(", did you mean \"{word}\"?"))
}

/// The word that is most like the text, if one is near enough.
pub(in crate::config) fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    /// Below this similarity (0 to 1) a suggestion is more confusing than none.
    const NEAR: f64 = 0.75;
    words
        .iter()
        .map(|word| (strsim::jaro_winkler(text, word), *word))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
