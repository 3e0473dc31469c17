//! The receiver's certificate. Its files are looked at for each connection, so that a renewed one is used without a restart.

use std::{fs, io, path::Path, time::SystemTime};

use jiff::{SignedDuration, Timestamp};
use native_tls::{Identity, Protocol};
use openssl::{asn1::Asn1Time, error::ErrorStack, pkey::PKey, x509::X509};
use tokio_native_tls::TlsAcceptor;
use tracing::{info, warn};

use crate::{config, telemetry::Metrics};

pub struct Tls {
    files: config::Tls,
    good: Certificate,
    metrics: Metrics,
    /// Of what was read last, whether it was good or not.
    read: Option<Fingerprint>,
}

/// What is shown to those who connect.
struct Certificate {
    acceptor: TlsAcceptor,
    expires: Timestamp,
}

/// What changes when a file does.
type Fingerprint = [(SystemTime, u64); 2];

impl Tls {
    /// # Errors
    /// When a file cannot be read, or certificate and key are no PEM, or do not belong together.
    pub fn read(files: &config::Tls, metrics: Metrics) -> io::Result<Self> {
        let read = fingerprint(files).ok();
        let tls = Self { good: certificate(files)?, files: files.clone(), read, metrics };
        tls.show();
        Ok(tls)
    }

    /// Of the newest good certificate.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        let found = fingerprint(&self.files).ok();
        if found.is_some() && found != self.read {
            self.read = found;
            match certificate(&self.files) {
                Ok(renewed) => {
                    info!("the webhook's certificate has changed, the new one is used");
                    self.good = renewed;
                }
                // Certificate and key change one after the other: the next look sees both.
                Err(fault) => warn!("could not use the webhook's new certificate, the old one stays: {fault}"),
            }
        }
        self.show();
        self.good.acceptor.clone()
    }

    fn show(&self) {
        let left = self.good.expires.duration_since(Timestamp::now()).as_secs_f64();
        let gauge = &self.metrics.webhook_certificate_expires_in_seconds;
        gauge.with_label_values::<&str>(&[]).set(left);
    }
}

fn fingerprint(files: &config::Tls) -> io::Result<Fingerprint> {
    let of = |file: &Path| {
        let found = fs::metadata(file)?;
        io::Result::Ok((found.modified()?, found.len()))
    };
    Ok([of(&files.certificate_file)?, of(&files.key_file)?])
}

fn certificate(files: &config::Tls) -> io::Result<Certificate> {
    let pem = |file: &Path| fs::read(file).map_err(|fault| io::Error::other(format!("{}: {fault}", file.display())));
    let (certificate, key) = (pem(&files.certificate_file)?, pem(&files.key_file)?);
    let leaf = X509::from_pem(&certificate).map_err(io::Error::other)?;
    // The library would take any two, and drop the key when a client comes.
    let public = leaf.public_key().map_err(io::Error::other)?;
    if !PKey::private_key_from_pem(&key).map_err(io::Error::other)?.public_eq(&public) {
        return Err(io::Error::other("certificate and key do not belong together"));
    }
    let identity = Identity::from_pkcs8(&certificate, &key).map_err(io::Error::other)?;
    let mut builder = native_tls::TlsAcceptor::builder(identity);
    let acceptor = builder.min_protocol_version(Some(Protocol::Tlsv12)).build().map_err(io::Error::other)?;
    Ok(Certificate { acceptor: acceptor.into(), expires: expiry(&leaf).map_err(io::Error::other)? })
}

/// When the certificate ends; the chain behind it is not looked at.
fn expiry(leaf: &X509) -> Result<Timestamp, ErrorStack> {
    let left = Asn1Time::days_from_now(0)?.diff(leaf.not_after())?;
    let left = SignedDuration::from_hours(24 * i64::from(left.days)) + SignedDuration::from_secs(left.secs.into());
    Ok(Timestamp::now().saturating_add(left).unwrap_or(Timestamp::MAX))
}
