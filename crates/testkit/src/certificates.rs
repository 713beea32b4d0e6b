//! Certificates for tests, made by the `openssl` command: authorities, and what they sign.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{next_number, scratch};

/// A certificate authority of one's own.
pub struct Authority {
    directory: PathBuf,
}

/// A certificate with its key, both PEM files.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// Makes a key and its certificate, in a directory of their own.
    pub fn create() -> Self {
        let directory = scratch().join(format!("authority-{}", next_number()));
        std::fs::create_dir(&directory).expect("create the authority's directory");
        openssl(
            &directory,
            "req -x509 -newkey rsa:2048 -noenc -days 2 -subj /CN=authority -keyout ca.key \
             -out ca.pem -addext keyUsage=critical,keyCertSign",
        );
        Self { directory }
    }

    /// What is to be trusted.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate for that subject alternative name, e.g. `DNS:localhost`.
    pub fn sign(&self, name: &str) -> Identity {
        self.sign_for(name, "-days 2")
    }

    /// One whose time is over.
    pub fn sign_expired(&self, name: &str) -> Identity {
        self.sign_for(name, "-days -1")
    }

    fn sign_for(&self, name: &str, days: &str) -> Identity {
        let stem = format!("leaf-{}", next_number());
        std::fs::write(self.directory.join("ext"), format!("subjectAltName={name}\n"))
            .expect("write the extensions");
        openssl(
            &self.directory,
            &format!(
                "req -newkey rsa:2048 -noenc -subj /CN=leaf -keyout {stem}.key -out {stem}.csr"
            ),
        );
        openssl(
            &self.directory,
            &format!(
                "x509 -req -in {stem}.csr -CA ca.pem -CAkey ca.key -CAcreateserial {days} \
                 -extfile ext -out {stem}.pem"
            ),
        );
        let file = |ending| self.directory.join(format!("{stem}.{ending}"));
        Identity { certificate: file("pem"), key: file("key") }
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .expect("run openssl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
}
