//! JSON as it stands in a record: checked once, split into its top-level members, and never
//! rebuilt. Values stay slices of the producer's text, so numbers keep every digit and no tree is
//! allocated for what no route asks for.
//!
//! Decisions that RFC 8259 leaves open: of duplicate member names the last wins, as in `jsonb`; a
//! byte order mark is refused; text that `jsonb` cannot hold (the escape of U+0000, a lone
//! surrogate) is reported apart from broken syntax.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use pgsluice_core::verdict::Reason;

/// What JSON calls white space; Rust's own notion is wider.
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// One member of an object.
pub(crate) struct Member<'a> {
    /// Its name, without escapes.
    pub(crate) name: Cow<'a, str>,
    /// Its value as it stands in the text.
    pub(crate) value: &'a str,
}

/// One JSON value whose syntax was checked.
pub(crate) struct Document<'a> {
    /// The value without surrounding white space.
    pub(crate) text: &'a str,
    /// The members in their order, duplicates included; `None` for anything but an object.
    pub(super) members: Option<Vec<Member<'a>>>,
}

/// What became of some bytes that should be JSON. Both parts can be there: a text that is too
/// deep, or that `jsonb` refuses, may still tell its top-level members.
pub(crate) struct Reading<'a> {
    /// The document, where its syntax allows to tell one.
    pub(crate) document: Option<Document<'a>>,
    /// Why it must not be stored.
    pub(crate) problem: Option<Reason>,
}

impl<'a> Document<'a> {
    /// Reads one JSON value, nested at most `max_depth` arrays and objects deep. Takes no stack
    /// for depth.
    pub(crate) fn read(bytes: &'a [u8], max_depth: usize) -> Reading<'a> {
        let refused = |reason| Reading { document: None, problem: Some(reason) };
        let Ok(text) = std::str::from_utf8(bytes) else { return refused(Reason::JsonSyntax) };
        match Self::parse(text) {
            Ok(document) => {
                let problem = storage_problem(document.text, max_depth);
                Reading { document: Some(document), problem }
            }
            Err(reason) => refused(reason),
        }
    }

    /// Reads text whose syntax may be broken, without the checks on depth and escapes.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Reason> {
        let text = text.trim_matches(WHITE_SPACE);
        if text.starts_with('{') {
            return match serde_json::from_str::<Members<'a>>(text) {
                Ok(Members(members)) => Ok(Self { text, members: Some(members) }),
                // Names are unescaped while they are read, so one that holds a lone surrogate
                // ends here although the syntax is right.
                Err(_) if serde_json::from_str::<&RawValue>(text).is_ok() => Err(Reason::JsonText),
                Err(_) => Err(Reason::JsonSyntax),
            };
        }
        match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Ok(Self { text, members: None }),
            Err(_) => Err(Reason::JsonSyntax),
        }
    }

    /// Whether the value is an object.
    pub(crate) fn is_object(&self) -> bool {
        self.members.is_some()
    }

    /// Whether the value is JSON's `null`.
    pub(crate) fn is_null(&self) -> bool {
        self.text == "null"
    }

    /// The value of a top-level member; the last one of that name.
    fn member(&self, name: &str) -> Option<&'a str> {
        let members = self.members.as_ref()?;
        members.iter().rev().find(|member| member.name == name).map(|member| member.value)
    }

    /// The object without the members of these names; the value itself when it is no object or has
    /// none of them.
    pub(crate) fn without(&self, names: &[Box<str>]) -> Rest<'a> {
        let own = |member: &Member<'_>| names.iter().any(|name| **name == *member.name);
        let Some(members) = self.members.as_ref().filter(|all| all.iter().any(own)) else {
            return Rest::Value(self.text);
        };
        let first = members.iter().position(|member| !own(member));
        let last = members.iter().rposition(|member| !own(member));
        if let (Some(first), Some(last)) = (first, last)
            && !members[first..=last].iter().any(own)
            && let Some(text) = self.run(&members[first], &members[last])
        {
            return Rest::Members(text);
        }
        let mut text = String::with_capacity(self.text.len());
        text.push('{');
        for member in members.iter().filter(|member| !own(member)) {
            if text.len() > 1 {
                text.push(',');
            }
            match &member.name {
                // Borrowed from the text, so it had no escapes there and needs none here.
                Cow::Borrowed(name) => text.extend(["\"", *name, "\":"]),
                Cow::Owned(name) => text.extend([quoted(name).as_str(), ":"]),
            }
            text.push_str(member.value);
        }
        text.push('}');
        Rest::Built(text)
    }

    /// The text from one member to another; `None` when the first one's name has escapes, because
    /// then nobody knows where it began.
    fn run(&self, first: &Member<'a>, last: &Member<'a>) -> Option<&'a str> {
        let Cow::Borrowed(name) = first.name else { return None };
        let place = |part: &str| part.as_ptr().addr().checked_sub(self.text.as_ptr().addr());
        // The quote before the name belongs to it.
        let start = place(name)?.checked_sub(1)?;
        self.text.get(start..place(last.value)? + last.value.len())
    }
}

/// What is left of a value without some of its members.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rest<'a> {
    /// All of it.
    Value(&'a str),
    /// These members, which stand next to each other; the braces are not part of the text.
    Members(&'a str),
    /// An object that was put together anew.
    Built(String),
}

impl<'a> Rest<'a> {
    /// The text of the value.
    pub(crate) fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Value(text) => Cow::Borrowed(text),
            Self::Members(members) => Cow::Owned(["{", members, "}"].concat()),
            Self::Built(text) => Cow::Owned(text),
        }
    }
}

/// An RFC 6901 pointer, split into its unescaped tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer(Box<[Box<str>]>);

impl Pointer {
    /// Reads a pointer such as `/customer/name`. The configuration has checked its form; the
    /// empty pointer is the whole value.
    pub(crate) fn new(text: &str) -> Self {
        let tokens = text.split('/').skip(1);
        Self(tokens.map(|token| token.replace("~1", "/").replace("~0", "~").into()).collect())
    }

    /// The pointer to a top-level member.
    pub(crate) fn member(name: &str) -> Self {
        Self(Box::new([name.into()]))
    }

    /// The first token: the top-level member the pointer goes through.
    pub(crate) fn first(&self) -> Option<&str> {
        self.0.first().map(|token| &**token)
    }

    /// The member name, when the pointer stands for a top-level member.
    pub(crate) fn top_level(&self) -> Option<&str> {
        match &*self.0 {
            [name] => Some(name),
            _ => None,
        }
    }

    /// The text of the value it points to.
    pub(crate) fn resolve<'a>(&self, document: &Document<'a>) -> Option<&'a str> {
        let Some((first, rest)) = self.0.split_first() else { return Some(document.text) };
        let mut text = match &document.members {
            Some(_) => document.member(first)?,
            None => child(document.text, first)?,
        };
        for token in rest {
            text = child(text, token)?;
        }
        Some(text)
    }
}

/// The member or element of a value that one pointer token names.
fn child<'a>(text: &'a str, token: &str) -> Option<&'a str> {
    match text.as_bytes().first()? {
        b'{' => Document::parse(text).ok()?.member(token),
        b'[' => {
            let canonical = token == "0" || !token.starts_with('0');
            if !canonical || !token.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let index: usize = token.parse().ok()?;
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            elements.get(index).map(|element| element.get())
        }
        _ => None,
    }
}

/// The content of a JSON string; `None` when the text is no string, or holds a lone surrogate.
pub(crate) fn string_content(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Whether a checked JSON text is a number.
pub(crate) fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// `text` as a JSON string, quoted and escaped.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Why valid JSON must not be stored.
pub(super) fn storage_problem(text: &str, max_depth: usize) -> Option<Reason> {
    if deeper_than(text, max_depth) {
        Some(Reason::JsonDepth)
    } else if has_unstorable_escape(text) {
        Some(Reason::JsonText)
    } else {
        None
    }
}

/// Whether valid JSON is nested deeper than `max_depth`.
fn deeper_than(text: &str, max_depth: usize) -> bool {
    let bytes = text.as_bytes();
    // Most texts have fewer brackets than they may have levels; counting is several times faster
    // than telling brackets in strings from the others.
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= max_depth {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > max_depth {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Whether valid JSON holds `\u0000` or a surrogate without its other half, in a string or in a
/// member name: `jsonb` and `text` refuse both.
fn has_unstorable_escape(text: &str) -> bool {
    let mut rest = text;
    // In valid JSON a backslash stands only in strings, and something follows it.
    while let Some(position) = rest.find('\\') {
        let Some((unit, after)) = code_unit(&rest[position..]) else {
            let escaped = rest[position + 1..].chars().next().map_or(0, char::len_utf8);
            rest = &rest[position + 1 + escaped..];
            continue;
        };
        rest = match unit {
            0 | 0xDC00..=0xDFFF => return true,
            0xD800..=0xDBFF => match code_unit(after) {
                Some((0xDC00..=0xDFFF, after)) => after,
                _ => return true,
            },
            _ => after,
        };
    }
    false
}

/// The UTF-16 code unit of the escape (`\u` and four digits) that `text` starts with, and what follows
/// it.
fn code_unit(text: &str) -> Option<(u16, &str)> {
    let digits = text.strip_prefix("\\u")?;
    let unit = u16::from_str_radix(digits.get(..4)?, 16).ok()?;
    Some((unit, &digits[4..]))
}

/// The members of an object, their values unread.
struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(16);
        while let Some(Name(name)) = map.next_key()? {
            let value: &'de RawValue = map.next_value()?;
            members.push(Member { name, value: value.get() });
        }
        Ok(Members(members))
    }
}

/// A member name, borrowed where it has no escapes; `Cow` itself would always be copied.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> Option<Reason> {
        Document::read(text.as_bytes(), 64).problem
    }

    fn at<'a>(text: &'a str, pointer: &str) -> Option<&'a str> {
        Pointer::new(pointer).resolve(&Document::parse(text).unwrap())
    }

    #[test]
    fn broken_syntax_is_told_from_text_that_cannot_be_stored() {
        for text in
            ["", "{", "{\"a\":1} x", "{'a':1}", "\u{feff}{}", "[1,]", "01", "\"\\x\"", "nul"]
        {
            assert_eq!(problem(text), Some(Reason::JsonSyntax), "{text}");
        }
        for text in [
            r#""a\u0000b""#,
            r#"{"a\u0000b":1}"#,
            r#"{"a":["\ud800x"]}"#,
            r#"{"\udc00":1}"#,
            r#"{"a":{"\ud800":1}}"#,
            r#""\ud800\u0041""#,
            r#""\udc00\ud800""#,
        ] {
            assert_eq!(problem(text), Some(Reason::JsonText), "{text}");
        }
        for text in [
            r#""\\u0000""#,
            r#""\ud83d\ude00""#,
            r#"{"\u0061":"\n\"\\"}"#,
            "\r\n {} \t",
            "\"\\\\\"",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
        assert_eq!(Document::read(b"\"\xff\"", 9).problem, Some(Reason::JsonSyntax));
    }

    #[test]
    fn depth_counts_only_brackets_outside_of_strings() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(problem(&deep(64)), None);
        assert_eq!(problem(&deep(65)), Some(Reason::JsonDepth));
        assert_eq!(problem(&deep(200_000)), Some(Reason::JsonDepth));
        assert_eq!(problem(&format!("\"\\\"{}\"", "[".repeat(100))), None);
        assert_eq!(problem(&format!("[{}]", "[],".repeat(100) + "1")), None);
    }

    #[test]
    fn pointers_follow_rfc_6901_and_the_last_of_a_name() {
        let text = r#"{"a":{"b":[10,{"c":"x"}]},"m~n":1,"s/t":2,"":3,"a\u0062":4,"d":5,"d":6}"#;
        assert_eq!(at(text, "/a/b/0"), Some("10"));
        assert_eq!(at(text, "/a/b/1/c"), Some("\"x\""));
        assert_eq!(at(text, "/m~0n"), Some("1"));
        assert_eq!(at(text, "/s~1t"), Some("2"));
        assert_eq!(at(text, "/"), Some("3"));
        assert_eq!(at(text, "/ab"), Some("4"));
        assert_eq!(at(text, "/d"), Some("6"));
        assert_eq!(at(text, ""), Some(text));
        for absent in ["/x", "/a/b/2", "/a/b/01", "/a/b/-", "/a/b/+1", "/d/e", "/a/b/0/0"] {
            assert_eq!(at(text, absent), None, "{absent}");
        }
        assert_eq!(at("[[7]]", "/0/0"), Some("7"));
    }

    #[test]
    fn removing_members_keeps_every_digit_of_the_others() {
        let text = r#"{"id":1,"n": 1.10e400 ,"i\u0064":2,"q\"":-0.0,"id":3}"#;
        let without = |text, name: &str| {
            Document::parse(text).unwrap().without(&[name.into()]).into_text().into_owned()
        };
        assert_eq!(without(text, "id"), r#"{"n":1.10e400,"q\"":-0.0}"#);
        assert_eq!(without(text, "x"), text);
        assert_eq!(without("{\"id\":1}", "id"), "{}");
    }

    #[test]
    fn members_that_stand_together_are_left_where_they_are() {
        let rest = |text| Document::parse(text).unwrap().without(&["id".into(), "t".into()]);
        for text in [
            r#"{"a": 1.0 , "b\"":2}"#,
            r#"{"id":1, "a": 1.0 , "b\"":2 ,"t":[]}"#,
            r#"{"a": 1.0 , "b\"":2,"id":1}"#,
            r#"{ "t":1,"i\u0064":2,"a": 1.0 , "b\"":2}"#,
        ] {
            match rest(text) {
                Rest::Value(all) => assert_eq!(all, text),
                Rest::Members(run) => assert_eq!(run, r#""a": 1.0 , "b\"":2"#),
                Rest::Built(built) => panic!("{built}"),
            }
        }
        assert_eq!(rest(r#"{"a":1,"id":2,"b":3}"#), Rest::Built(r#"{"a":1,"b":3}"#.into()));
        assert_eq!(rest(r#"{"id":2,"\u0061":3}"#), Rest::Built(r#"{"a":3}"#.into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let reading = Document::read(&bytes, 8);
            prop_assert!(reading.document.is_some() || reading.problem.is_some());
        }

        #[test]
        fn whatever_is_accepted_holds_the_text_postgres_can_store(
            text in r#"(\[|\{|\}|\]|"|:|,|\\u(0000|0041|d800|dc00)|\\n|a|1| ){0,24}"#
        ) {
            let reading = Document::read(text.as_bytes(), 8);
            if reading.problem.is_none() {
                // serde_json's own tree refuses lone surrogates.
                let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert!(!tree.to_string().contains("\\u0000"));
            }
        }
    }
}
