//! A host on 127.0.0.1 that speaks TLS with a certificate of its own.

use std::{fs, path::PathBuf};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    pkey::PKey,
    rsa::Rsa,
    x509::{
        X509, X509Name,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

use crate::scratch::Scratch;

/// A host that speaks TLS, behind a proxy's tunnel where there is one, and the file of its certificate.
pub struct TlsHost {
    pub port: u16,
    certificate: PathBuf,
    _runtime: Runtime,
    _scratch: Scratch,
}

impl TlsHost {
    /// `tunnel`: what it answers to CONNECT before it shakes hands.
    pub fn start(name: &'static str, tunnel: Option<&'static str>) -> Self {
        let runtime = Runtime::new().unwrap();
        let (certificate, key) = self_signed(name);
        let identity = native_tls::Identity::from_pkcs8(&certificate, &key).unwrap();
        let acceptor = tokio_native_tls::TlsAcceptor::from(native_tls::TlsAcceptor::new(identity).unwrap());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Some(answer) = tunnel {
                        let mut head = [0; 1024];
                        let count = stream.read(&mut head).await.unwrap_or(0);
                        if !head[..count].starts_with(b"CONNECT ") {
                            return;
                        }
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                    let Ok(mut tls) = acceptor.accept(stream).await else { return };
                    let mut head = [0; 1024];
                    let _ = tls.read(&mut head).await;
                    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
                    let _ = tls.write_all(format!("HTTP/1.1 404 Not Found\r\nDate: {date}\r\n\r\n").as_bytes()).await;
                });
            }
        });
        let scratch = Scratch::new("tls");
        let file = scratch.path().join("certificate.pem");
        fs::write(&file, certificate).unwrap();
        Self { port, certificate: file, _runtime: runtime, _scratch: scratch }
    }

    /// The variable that makes a process trust it.
    pub fn trusted(&self) -> (&str, &str) {
        ("SSL_CERT_FILE", self.certificate.to_str().unwrap())
    }
}

/// Certificate and key, in PEM. It ends in a day.
pub fn self_signed(name: &str) -> (Vec<u8>, Vec<u8>) {
    let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_text("CN", "Contoso Inspection").unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(7).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    let names = SubjectAlternativeName::new().dns(name).build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build().to_pem().unwrap(), key.private_key_to_pem_pkcs8().unwrap())
}
