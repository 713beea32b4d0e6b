//! Files that settings name: their content, and why it cannot be read.

use std::io;
use std::path::Path;

/// The content of a file without the line end that editors add.
pub(in crate::config) fn read_secret_line(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(cannot_read(path, &error)),
    }
}

/// The message for a file that cannot be read.
pub(in crate::config) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {}", path.display(), why(error))
}

/// Why a file cannot be read, in an operator's words.
pub(in crate::config) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        kind => kind.to_string(),
    }
}
