//! Connects, with TLS as `postgres.url` asks for it, and says what was wrong with a certificate.
//!
//! OpenSSL is asked for its verdict while it verifies, so that nothing has to be read out of an
//! error's text (INV-9). Certificates are those of the target: read anew for each session.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::{TlsConnector, TlsStream};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};

use crate::config::{Target, Tls, Verification};
use pgsluice_core::fault::{Fault, FaultKind, TlsFault};

// The numbers of `X509_V_ERR_*` in OpenSSL's x509_vfy.h; the crate has no names for them.
const NO_ISSUER: i32 = 2;
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const SELF_SIGNED: i32 = 18;
const SELF_SIGNED_IN_CHAIN: i32 = 19;
const NO_LOCAL_ISSUER: i32 = 20;
const UNVERIFIED_LEAF: i32 = 21;
const UNTRUSTED: i32 = 27;
const WRONG_HOST: i32 = 62;
const WRONG_ADDRESS: i32 = 64;

/// A connection's other half, which moves its bytes; plain or encrypted.
pub(crate) type Wire = Connection<Socket, TlsStream<Socket>>;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Refused {
    error: tokio_postgres::Error,
    certificate: Option<TlsFault>,
}

impl Refused {
    /// What is wrong, without anybody's text.
    pub(crate) fn fault(&self) -> Fault {
        let fault = crate::postgres::fault_of(&self.error);
        match (fault.kind, self.certificate) {
            (FaultKind::Tls(_), Some(verdict)) => Fault::new(FaultKind::Tls(verdict)),
            _ => fault,
        }
    }

    /// The driver's own error, for those who can take nothing else.
    pub(crate) fn into_error(self) -> tokio_postgres::Error {
        self.error
    }
}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        Self { error, certificate: None }
    }
}

/// Opens a connection. Nothing is sent, not even the user's name, before the certificate was
/// found good.
pub(crate) async fn connect(target: &Target) -> Result<(Client, Wire), Refused> {
    let verdict = Arc::new(AtomicI32::new(X509VerifyResult::OK.as_raw()));
    let handshakes = Handshakes { tls: &target.tls, verdict: Arc::clone(&verdict) };
    target
        .driver
        .connect(handshakes)
        .await
        .map_err(|error| Refused { error, certificate: tls_fault(verdict.load(Ordering::Relaxed)) })
}

/// Makes a handshake for each host that is tried.
struct Handshakes<'a> {
    tls: &'a Tls,
    verdict: Arc<AtomicI32>,
}

impl MakeTlsConnect<Socket> for Handshakes<'_> {
    type Stream = TlsStream<Socket>;
    type TlsConnect = TlsConnector;
    type Error = ErrorStack;

    fn make_tls_connect(&mut self, host: &str) -> Result<TlsConnector, ErrorStack> {
        let mut connection = connector(self.tls, &self.verdict)?.configure()?;
        connection.set_verify_hostname(self.tls.verification == Verification::Full);
        Ok(TlsConnector::new(connection, host))
    }
}

fn connector(tls: &Tls, verdict: &Arc<AtomicI32>) -> Result<SslConnector, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    // libpq's own lower bound; older versions have known weaknesses.
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    if let Some(roots) = &tls.roots {
        // A store of its own: what the system trusts does not count beside `sslrootcert`.
        let mut store = X509StoreBuilder::new()?;
        for root in roots {
            store.add_cert(root.clone())?;
        }
        builder.set_cert_store(store.build());
    }
    if let Some((chain, key)) = &tls.client {
        for (at, certificate) in chain.iter().enumerate() {
            if at == 0 {
                builder.set_certificate(certificate)?;
            } else {
                builder.add_extra_chain_cert(certificate.clone())?;
            }
        }
        builder.set_private_key(key)?;
    }
    verify(&mut builder, tls.verification, verdict);
    Ok(builder.build())
}

fn verify(builder: &mut SslConnectorBuilder, wanted: Verification, verdict: &Arc<AtomicI32>) {
    if wanted == Verification::None {
        builder.set_verify(SslVerifyMode::NONE);
        return;
    }
    let verdict = Arc::clone(verdict);
    builder.set_verify_callback(SslVerifyMode::PEER, move |good, chain| {
        if !good {
            verdict.store(chain.error().as_raw(), Ordering::Relaxed);
        }
        good
    });
}

fn tls_fault(verdict: i32) -> Option<TlsFault> {
    Some(match verdict {
        0 => return None,
        NO_ISSUER | SELF_SIGNED | SELF_SIGNED_IN_CHAIN | NO_LOCAL_ISSUER | UNVERIFIED_LEAF
        | UNTRUSTED => TlsFault::UnknownCa,
        NOT_YET_VALID => TlsFault::NotYetValid,
        EXPIRED => TlsFault::Expired,
        WRONG_HOST | WRONG_ADDRESS => TlsFault::WrongName,
        _ => TlsFault::BadCertificate,
    })
}
