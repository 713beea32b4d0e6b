//! `[admin]`: where the admin port listens.

use std::net::SocketAddr;

use crate::config::load::reader::Section;

/// The admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
}

impl AdminConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let text = section.text("listen");
        let listen = text.parse().unwrap_or_else(|_| {
            if !text.is_empty() {
                section.problem("listen", "expected an address and port, such as 127.0.0.1:9187");
            }
            SocketAddr::from(([127, 0, 0, 1], 0))
        });
        section.finish();
        Self { listen }
    }
}
