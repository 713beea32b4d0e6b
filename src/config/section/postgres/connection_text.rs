//! The parameters about TLS are taken out of a connection text before the driver parses it: the
//! driver knows three of the modes and none of the files, and calls the others a syntax error.

use percent_encoding::percent_decode_str;

use super::UrlError;
use super::tls::{TakeError, TlsParameters};

/// The text without parameters about TLS, and those.
pub(super) fn split(text: &str) -> Result<(String, TlsParameters), UrlError> {
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => split_url(text, rest),
        None => split_pairs(text),
    }
}

fn split_url(text: &str, after_scheme: &str) -> Result<(String, TlsParameters), UrlError> {
    // As the driver reads it: a "?" in front of the "@" belongs to the password.
    let (credentials, after_user) = after_scheme.split_once('@').unwrap_or(("", after_scheme));
    if unescaped(credentials, after_user) {
        return Err(UrlError::Unescaped);
    }
    let mut tls = TlsParameters::default();
    let Some((_, query)) = after_user.split_once('?') else {
        return Ok((text.to_owned(), tls));
    };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| UrlError::Syntax)?;
        if !taken(&mut tls, name, value.into_owned())? {
            kept.push(pair);
        }
    }
    let base = &text[..text.len() - query.len() - 1];
    let rest = if kept.is_empty() { base.into() } else { format!("{base}?{}", kept.join("&")) };
    Ok((rest, tls))
}

/// Whether an `@` stands where the driver would take something else for the host than was meant. It
/// ends the user and password at the first one; a `/` or `?` within the password does no harm.
fn unescaped(credentials: &str, after_user: &str) -> bool {
    let user = credentials.split(':').next().unwrap_or_default();
    let (place, query) = after_user.split_once('?').unwrap_or((after_user, ""));
    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
    user.contains(['/', '?']) || place.contains('@') || names.any(|name| name.contains('@'))
}

fn split_pairs(text: &str) -> Result<(String, TlsParameters), UrlError> {
    let mut tls = TlsParameters::default();
    let (mut kept, mut rest) = (String::new(), text.trim_start());
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(UrlError::Syntax)?;
        let (value, next) = value(after.trim_start())?;
        if !taken(&mut tls, name.trim(), value)? {
            kept.push_str(&rest[..rest.len() - next.len()]);
            kept.push(' ');
        }
        rest = next.trim_start();
    }
    Ok((kept, tls))
}

/// One value of `name=value` text, bare or in quotes, and what follows it.
fn value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next().ok_or(UrlError::Syntax)?.1),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted { Err(UrlError::Syntax) } else { Ok((value, "")) }
}

fn taken(tls: &mut TlsParameters, name: &str, value: String) -> Result<bool, UrlError> {
    match tls.take(name, value) {
        Ok(()) => Ok(true),
        Err(TakeError::NotTls) => Ok(false),
        Err(TakeError::NotSupported(name)) => Err(UrlError::NotSupported(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(mode: &str, root_cert: &str) -> TlsParameters {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        TlsParameters { mode: given(mode), root_cert: given(root_cert), ..TlsParameters::default() }
    }

    #[test]
    fn parameters_about_tls_leave_a_url_and_the_others_stay() {
        let url = "postgres://a:p?sslmode=x@h/d?connect_timeout=5&sslmode=verify-ca\
                   &sslrootcert=%2Fetc%2Fca.pem&options=-c%20jit=off";
        let (rest, found) = split(url).expect("valid");
        assert_eq!(rest, "postgres://a:p?sslmode=x@h/d?connect_timeout=5&options=-c%20jit=off");
        assert_eq!(found, tls("verify-ca", "/etc/ca.pem"));
        let (rest, found) = split("postgresql://a@h/d?sslmode=require").expect("valid");
        assert_eq!((rest.as_str(), found), ("postgresql://a@h/d", tls("require", "")));
    }

    #[test]
    fn parameters_about_tls_leave_pairs_quoted_or_not() {
        let text = r"host=h sslmode = verify-full password='a sslmode=x \' b' sslrootcert='/a b'";
        let (rest, found) = split(text).expect("valid");
        assert_eq!(rest, r"host=h password='a sslmode=x \' b' ");
        assert_eq!(found, tls("verify-full", "/a b"));
        assert_eq!(split("host='h"), Err(UrlError::Syntax));
        assert_eq!(split("host"), Err(UrlError::Syntax));
    }

    #[test]
    fn what_would_have_to_be_dropped_in_silence_is_refused_by_name() {
        let refused = split("postgres://a@h/d?sslcrl=/x").expect_err("not supported");
        assert_eq!(refused, UrlError::NotSupported("sslcrl".to_owned()));
    }
}
