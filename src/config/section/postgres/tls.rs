//! TLS to PostgreSQL: what `postgres.url` asks for, by libpq's names.
//!
//! | `sslmode` | encrypted | server's certificate |
//! | --- | --- | --- |
//! | `disable` | never | |
//! | `prefer` | if the server can | not looked at |
//! | `require` | always | its chain, if `sslrootcert` is given; else not looked at |
//! | `verify-ca` | always | its chain |
//! | `verify-full` | always | its chain and that it names the host |
//!
//! Without a mode it is `verify-full`, and `disable` where every host is a unix socket or the
//! loopback interface. A unix socket is never encrypted, whatever the mode. The chain ends at a
//! certificate of `sslrootcert`, else at one the system trusts.

use std::net::IpAddr;
use std::path::Path;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use tokio_postgres::config::{Host, SslMode};

use super::UrlError;
use crate::config::load::file::why;

/// `sslrootcert` that stands for what the system trusts.
const SYSTEM: &str = "system";

/// How much of the server's certificate has to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: encryption without knowing with whom.
    None,
    /// The chain to a trusted certificate.
    Chain,
    /// The chain, and the host's name.
    Full,
}

/// What TLS needs, read from its files.
#[derive(Clone)]
pub struct Tls {
    /// What is looked at.
    pub verification: Verification,
    /// Certificates to trust; `None` for those of the system.
    pub roots: Option<Vec<X509>>,
    /// Our own certificate with its chain, and its key.
    pub client: Option<(Vec<X509>, PKey<Private>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("verification", &self.verification).finish_non_exhaustive()
    }
}

/// The parameters about TLS of a connection text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TlsParameters {
    pub(super) mode: Option<String>,
    pub(super) root_cert: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

impl TlsParameters {
    /// Takes a parameter if it is about TLS; gives it back otherwise.
    pub(super) fn take<'a>(&mut self, name: &'a str, value: String) -> Result<(), TakeError<'a>> {
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root_cert,
            "sslcert" => &mut self.cert,
            "sslkey" => &mut self.key,
            // Dropping one of these would weaken what was asked for.
            "sslcrl"
            | "sslcrldir"
            | "sslpassword"
            | "sslcertmode"
            | "ssl_min_protocol_version"
            | "ssl_max_protocol_version"
            | "sslcompression"
            | "sslsni"
            | "requiressl"
            | "gssencmode"
            | "require_auth" => return Err(TakeError::NotSupported(name)),
            _ => return Err(TakeError::NotTls),
        };
        *place = Some(value);
        Ok(())
    }

    /// Reads the files and settles how the driver asks for TLS.
    pub(super) fn apply(&self, config: &mut tokio_postgres::Config) -> Result<Tls, UrlError> {
        let hosts = config.get_hosts();
        let only_sockets = !hosts.is_empty() && hosts.iter().all(|host| !is_tcp(host));
        let mode = match self.mode.as_deref() {
            None if self.root_cert.is_none() && is_local(config) => "disable",
            None => "verify-full",
            Some(mode) => mode,
        };
        let (ssl_mode, verification) = match mode {
            "disable" => (SslMode::Disable, Verification::None),
            "prefer" => (SslMode::Prefer, Verification::None),
            "require" if self.root_cert.is_some() => (SslMode::Require, Verification::Chain),
            "require" => (SslMode::Require, Verification::None),
            "verify-ca" => (SslMode::Require, Verification::Chain),
            "verify-full" => (SslMode::Require, Verification::Full),
            _ => return Err(UrlError::SslMode),
        };
        let system = self.root_cert.as_deref() == Some(SYSTEM);
        // Anybody can have a certificate that the system trusts.
        if system && verification != Verification::Full {
            return Err(UrlError::SystemRoots);
        }
        if ssl_mode != SslMode::Disable && hosts.is_empty() {
            return Err(UrlError::Missing("host for the server's certificate"));
        }
        let roots = match self.root_cert.as_deref().filter(|_| !system) {
            Some(path) => Some(certificates("sslrootcert", path)?),
            None => None,
        };
        let client = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(identity(cert, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(UrlError::Missing("sslkey for its sslcert")),
            (None, Some(_)) => return Err(UrlError::Missing("sslcert for its sslkey")),
        };
        config.ssl_mode(if only_sockets { SslMode::Disable } else { ssl_mode });
        Ok(Tls { verification, roots, client })
    }
}

/// Why a parameter was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TakeError<'a> {
    /// The driver's business.
    NotTls,
    /// About TLS, but not part of this version.
    NotSupported(&'a str),
}

fn is_tcp(host: &Host) -> bool {
    matches!(host, Host::Tcp(_))
}

/// Whether what is sent never leaves this machine.
pub(super) fn is_local(config: &tokio_postgres::Config) -> bool {
    // The address is where the bytes go, the host only the name beside it.
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().all(IpAddr::is_loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    })
}

fn identity(cert: &str, key: &str) -> Result<(Vec<X509>, PKey<Private>), UrlError> {
    let (chain, key) = (certificates("sslcert", cert)?, private_key("sslkey", key)?);
    match chain[0].public_key() {
        Ok(public) if public.public_eq(&key) => Ok((chain, key)),
        _ => Err(UrlError::WrongKey),
    }
}

fn certificates(name: &'static str, path: &str) -> Result<Vec<X509>, UrlError> {
    let found = X509::stack_from_pem(&read(name, path)?).unwrap_or_default();
    if found.is_empty() { Err(UrlError::NotPem(name)) } else { Ok(found) }
}

fn private_key(name: &'static str, path: &str) -> Result<PKey<Private>, UrlError> {
    // Without a callback an encrypted key would ask for its password on the terminal.
    PKey::private_key_from_pem_callback(&read(name, path)?, |_| Ok(0))
        .map_err(|_| UrlError::NotPem(name))
}

fn read(name: &str, path: &str) -> Result<Vec<u8>, UrlError> {
    // The path is part of the URL, which is never shown.
    std::fs::read(Path::new(path))
        .map_err(|error| UrlError::File(format!("{name}: cannot read its file: {}", why(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(driver: &str, parameters: &[(&str, &str)]) -> Result<(SslMode, Tls), UrlError> {
        let mut config: tokio_postgres::Config = driver.parse().expect("valid");
        let mut tls = TlsParameters::default();
        for (name, value) in parameters {
            tls.take(name, (*value).to_owned()).expect("about TLS");
        }
        let settled = tls.apply(&mut config)?;
        Ok((config.get_ssl_mode(), settled))
    }

    #[test]
    fn without_a_mode_only_what_stays_on_this_machine_is_sent_in_plain() {
        for local in ["host=localhost", "host=127.0.0.1", "host=::1", "host=/run/postgresql"] {
            assert_eq!(settle(local, &[]).expect(local).0, SslMode::Disable, "{local}");
        }
        for remote in ["host=db", "host=localhost,db", "host=localhost hostaddr=10.0.0.1"] {
            let (mode, tls) = settle(remote, &[]).expect(remote);
            assert_eq!((mode, tls.verification), (SslMode::Require, Verification::Full));
        }
    }

    #[test]
    fn the_named_mode_counts_wherever_the_server_is() {
        let expected = [
            ("disable", SslMode::Disable, Verification::None),
            ("prefer", SslMode::Prefer, Verification::None),
            ("require", SslMode::Require, Verification::None),
            ("verify-ca", SslMode::Require, Verification::Chain),
            ("verify-full", SslMode::Require, Verification::Full),
        ];
        for (name, mode, verification) in expected {
            for host in ["host=localhost", "host=db"] {
                let (found, tls) = settle(host, &[("sslmode", name)]).expect(name);
                assert_eq!((found, tls.verification), (mode, verification), "{name} {host}");
            }
        }
        for unknown in ["allow", "Require", ""] {
            let refused = settle("host=db", &[("sslmode", unknown)]).expect_err("unknown");
            assert_eq!(refused, UrlError::SslMode, "{unknown}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named_by_their_parameter() {
        let missing = settle("host=db", &[("sslrootcert", "/nowhere/s3cret")]);
        let text = missing.expect_err("missing").to_string();
        assert!(text.contains("sslrootcert") && !text.contains("s3cret"), "{text}");
        let empty = settle("host=db", &[("sslrootcert", "/dev/null")]);
        assert_eq!(empty.expect_err("empty"), UrlError::NotPem("sslrootcert"));
        let lonely = settle("host=db", &[("sslcert", "/dev/null")]);
        assert_eq!(lonely.expect_err("no key"), UrlError::Missing("sslkey for its sslcert"));
        let lonely = settle("host=db", &[("sslkey", "/dev/null")]);
        assert_eq!(lonely.expect_err("no cert"), UrlError::Missing("sslcert for its sslkey"));
    }

    #[test]
    fn a_key_is_that_of_its_certificate_and_not_encrypted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let written = |name: &str, pem: Vec<u8>| {
            let path = directory.path().join(name);
            std::fs::write(&path, pem).expect("temporary file");
            path.to_str().expect("utf-8").to_owned()
        };
        let [own, other] =
            [(), ()].map(|()| PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap());
        let mut certificate = X509::builder().unwrap();
        certificate.set_pubkey(&own).unwrap();
        let day = |number| openssl::asn1::Asn1Time::days_from_now(number).unwrap();
        certificate.set_not_before(&day(0)).unwrap();
        certificate.set_not_after(&day(1)).unwrap();
        certificate.sign(&own, openssl::hash::MessageDigest::sha256()).unwrap();
        let certificate = written("cert", certificate.build().to_pem().unwrap());
        let with = |key: &str| settle("host=db", &[("sslcert", &certificate), ("sslkey", key)]);

        with(&written("own", own.private_key_to_pem_pkcs8().unwrap())).expect("its own");
        let refused = with(&written("other", other.private_key_to_pem_pkcs8().unwrap()));
        assert_eq!(refused.expect_err("another's"), UrlError::WrongKey);
        let cipher = openssl::symm::Cipher::aes_128_cbc();
        let locked = own.private_key_to_pem_pkcs8_passphrase(cipher, b"s3cret").unwrap();
        let refused = with(&written("locked", locked));
        assert_eq!(refused.expect_err("encrypted"), UrlError::NotPem("sslkey"));
    }

    #[test]
    fn a_socket_is_never_encrypted_and_an_address_alone_names_no_host() {
        let (mode, _) =
            settle("host=/run/postgresql", &[("sslmode", "require")]).expect("a socket");
        assert_eq!(mode, SslMode::Disable);
        let nameless = settle("hostaddr=10.0.0.1", &[]).expect_err("no name to look for");
        assert_eq!(nameless, UrlError::Missing("host for the server's certificate"));
        assert!(settle("hostaddr=10.0.0.1", &[("sslmode", "disable")]).is_ok());
    }

    #[test]
    fn the_systems_roots_are_not_enough_to_know_the_server_by() {
        let system = ("sslrootcert", SYSTEM);
        assert!(settle("host=db", &[system]).is_ok());
        for weak in ["require", "verify-ca"] {
            let refused = settle("host=db", &[system, ("sslmode", weak)]);
            assert_eq!(refused.expect_err(weak), UrlError::SystemRoots);
        }
    }
}
