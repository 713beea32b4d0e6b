//! JSON in one form for equal values, so that a JSON key names its aggregate in one way.

use serde_json::value::RawValue;

use super::json::{Document, quoted, storage_problem, string_content};

/// How deep a key may be nested to be brought into canonical form.
const KEY_DEPTH: usize = 32;

/// The canonical text of a JSON value: no white space, members sorted by name and the last of a
/// name kept, strings escaped in one way only, numbers digit for digit. A string at the top is
/// its own content, so that the keys `"c-1"` and `c-1` name the same aggregate.
///
/// `None` when `text` is not JSON, is nested deeper than any sensible key, or holds text that
/// Postgres cannot store.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let document = Document::parse(text).ok()?;
    if storage_problem(document.text, KEY_DEPTH).is_some() {
        return None;
    }
    if let Some(content) = string_content(document.text) {
        return Some(content.into_owned());
    }
    let mut out = String::with_capacity(document.text.len());
    push_canonical(&mut out, &document)?;
    Some(out)
}

/// Recursion is bounded by [`KEY_DEPTH`].
fn push_canonical(out: &mut String, document: &Document<'_>) -> Option<()> {
    if let Some(members) = &document.members {
        let sorted: std::collections::BTreeMap<&str, &str> =
            members.iter().map(|member| (&*member.name, member.value)).collect();
        out.push('{');
        for (position, (name, value)) in sorted.into_iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            push_canonical(out, &Document::parse(value).ok()?)?;
        }
        out.push('}');
    } else if document.text.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(document.text).ok()?;
        out.push('[');
        for (position, element) in elements.into_iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            push_canonical(out, &Document::parse(element.get()).ok()?)?;
        }
        out.push(']');
    } else if let Some(content) = string_content(document.text) {
        out.push_str(&quoted(&content));
    } else {
        out.push_str(document.text);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_is_one_for_equal_keys() {
        assert_eq!(canonical("\"c-1\"").unwrap(), "c-1");
        assert_eq!(canonical(" 42 ").unwrap(), "42");
        assert_eq!(canonical("1.0").unwrap(), "1.0");
        assert_eq!(
            canonical(r#"{ "b" : [ 1, "\u0041" ] , "a": null, "b":{"d":1,"c":2} }"#).unwrap(),
            r#"{"a":null,"b":{"c":2,"d":1}}"#
        );
        for text in ["c-1", "007", "", "\"a\\u0000\"", &"[".repeat(100)] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
