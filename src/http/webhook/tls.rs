//! The receiver's certificate. Its files are looked at for each connection, so that a renewed one is used without a restart.

use std::{fs, io, path::Path, time::SystemTime};

use native_tls::{Identity, Protocol};
use openssl::{pkey::PKey, x509::X509};
use tokio_native_tls::TlsAcceptor;
use tracing::{info, warn};

use crate::config;

pub struct Tls {
    files: config::Tls,
    acceptor: TlsAcceptor,
    /// Of what was read last, whether it was good or not.
    read: Option<Fingerprint>,
}

/// What changes when a file does.
type Fingerprint = [(SystemTime, u64); 2];

impl Tls {
    /// # Errors
    /// When a file cannot be read, or certificate and key are no PEM, or do not belong together.
    pub fn read(files: &config::Tls) -> io::Result<Self> {
        let read = fingerprint(files).ok();
        Ok(Self { acceptor: acceptor(files)?, files: files.clone(), read })
    }

    /// Of the newest good certificate.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        let found = fingerprint(&self.files).ok();
        if found.is_some() && found != self.read {
            self.read = found;
            match acceptor(&self.files) {
                Ok(renewed) => {
                    info!("the webhook's certificate has changed, the new one is used");
                    self.acceptor = renewed;
                }
                // Certificate and key change one after the other: the next look sees both.
                Err(fault) => warn!("could not use the webhook's new certificate, the old one stays: {fault}"),
            }
        }
        self.acceptor.clone()
    }
}

fn fingerprint(files: &config::Tls) -> io::Result<Fingerprint> {
    let of = |file: &Path| {
        let found = fs::metadata(file)?;
        io::Result::Ok((found.modified()?, found.len()))
    };
    Ok([of(&files.certificate_file)?, of(&files.key_file)?])
}

fn acceptor(files: &config::Tls) -> io::Result<TlsAcceptor> {
    let pem = |file: &Path| fs::read(file).map_err(|fault| io::Error::other(format!("{}: {fault}", file.display())));
    let (certificate, key) = (pem(&files.certificate_file)?, pem(&files.key_file)?);
    // The library would take any two, and drop the key when a client comes.
    let public = X509::from_pem(&certificate).and_then(|leaf| leaf.public_key()).map_err(io::Error::other)?;
    if !PKey::private_key_from_pem(&key).map_err(io::Error::other)?.public_eq(&public) {
        return Err(io::Error::other("certificate and key do not belong together"));
    }
    let identity = Identity::from_pkcs8(&certificate, &key).map_err(io::Error::other)?;
    let mut builder = native_tls::TlsAcceptor::builder(identity);
    let acceptor = builder.min_protocol_version(Some(Protocol::Tlsv12)).build().map_err(io::Error::other)?;
    Ok(acceptor.into())
}
