//! A service on 127.0.0.1 whose every answer a test decides. It keeps what it was asked.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode},
};
use bytes::Bytes;
use jiff::Timestamp;
use openssl::{
    asn1::Asn1Time,
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    x509::X509,
};
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    call::Timeouts,
    client::{TenantApi, Ways},
    meter::Meter,
};
use crate::{
    config::{Cloud, Credential, Settings, Tenant},
    domain::{ContentType, Listed, Source, TenantId, Window},
};

pub const SECRET: &str = "s3cr3t~+/&= ü";
pub const PUBLISHER: &str = "11111111-2222-3333-4444-555555555555";

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    pub fn is_for_a_token(&self) -> bool {
        self.path.ends_with("/oauth2/v2.0/token")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Script = dyn Fn(&Asked, &str) -> Response<Body> + Send + Sync;

pub struct Stage {
    pub api: Arc<TenantApi>,
    /// Where it listens: `http://127.0.0.1:…`
    pub root: String,
    pub meter: Meter,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stage {
    /// Answers every request with what `script` makes of it and of the stage's root.
    pub async fn new(script: impl Fn(&Asked, &str) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::with_credential(Credential::Secret(SecretString::from(SECRET)), script).await
    }

    /// Gives tokens `token-1`, `token-2` … that last an hour; the rest is for `script`.
    pub async fn with_tokens(script: impl Fn(&Asked, &str) -> Response<Body> + Send + Sync + 'static) -> Self {
        let given = Mutex::new(0);
        Self::new(move |asked, root| {
            if !asked.is_for_a_token() {
                return script(asked, root);
            }
            let mut given = given.lock().unwrap();
            *given += 1;
            token(&format!("token-{given}"), 3600)
        })
        .await
    }

    pub async fn with_credential(
        credential: Credential,
        script: impl Fn(&Asked, &str) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let (asked, script): (Arc<Mutex<Vec<Asked>>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let (book, base) = (Arc::clone(&asked), root.clone());
        let router = Router::new().fallback(move |request: Request| {
            let (book, base, script) = (Arc::clone(&book), base.clone(), Arc::clone(&script));
            async move {
                let asked = note(request).await;
                book.lock().unwrap().push(asked.clone());
                script(&asked, &base)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });

        let meter = Meter::for_tests("contoso");
        let timeouts = Timeouts {
            first_byte: Duration::from_millis(500),
            idle: Duration::from_millis(500),
            ..Timeouts::default()
        };
        let ways = Ways::new(timeouts).unwrap();
        let api = TenantApi::new(&tenant(&root, credential), 60_000, &ways, timeouts, meter.clone()).unwrap();
        Self { api: Arc::new(api), root, meter, asked }
    }

    /// Everything asked so far but tokens.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| !asked.is_for_a_token()).cloned().collect()
    }

    pub fn token_requests(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.is_for_a_token()).cloned().collect()
    }
}

async fn note(request: Request) -> Asked {
    let (parts, body) = request.into_parts();
    Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: to_bytes(body, 1 << 20).await.unwrap(),
    }
}

/// Settings with one tenant, whose API is at `root`.
pub fn settings_of(root: &str, id: Uuid) -> Settings {
    let credential = Credential::Secret(SecretString::from(SECRET));
    Settings::with_defaults(vec![Tenant { id: TenantId(id), ..tenant(root, credential) }], "host")
}

fn tenant(root: &str, credential: Credential) -> Tenant {
    Tenant {
        id: TenantId(Uuid::from_u128(7)),
        name: "contoso".to_owned(),
        cloud: Cloud::Worldwide,
        api_root: root.parse().unwrap(),
        authority: root.parse().unwrap(),
        audience: "https://manage.office.com".to_owned(),
        client_id: "client-1".to_owned(),
        credential,
        content_types: ContentType::ALL.to_vec(),
        publisher_identifier: PUBLISHER.parse().unwrap(),
    }
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

pub fn ok(body: impl Into<Body>) -> Response<Body> {
    reply(200, &[], body)
}

pub fn af(status: u16, code: &str) -> Response<Body> {
    reply(status, &[], serde_json::json!({"error": {"code": code, "message": "words"}}).to_string())
}

pub fn token(text: &str, seconds: u64) -> Response<Body> {
    ok(serde_json::json!({"token_type": "Bearer", "access_token": text, "expires_in": seconds}).to_string())
}

pub fn aadsts(status: u16, error: &str, number: u32) -> Response<Body> {
    let body = serde_json::json!({
        "error": error, "error_description": format!("AADSTS{number}: words"), "error_codes": [number],
        "trace_id": "t-1", "correlation_id": "c-1",
    });
    reply(status, &[], body.to_string())
}

/// A content as a listing of General would name it, its link on `root`.
pub fn item(root: &str, id: &str) -> String {
    serde_json::json!({
        "contentType": "Audit.General", "contentId": id,
        "contentUri": format!("{root}/api/v1.0/t/activity/feed/audit/{id}"),
        "contentCreated": "2026-01-01T00:00:00.000Z", "contentExpiration": "2026-01-08T00:00:00.000Z",
    })
    .to_string()
}

pub fn listed(uri: &str, id: &str) -> Listed {
    Listed {
        source: Source { tenant: TenantId(Uuid::from_u128(7)), content_type: ContentType::General },
        content_id: id.to_owned(),
        content_uri: uri.to_owned(),
        created: Timestamp::UNIX_EPOCH,
        expires: Timestamp::UNIX_EPOCH,
        raw: Bytes::new(),
    }
}

pub fn an_hour() -> Window {
    Window::new("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T01:00:00Z".parse().unwrap()).unwrap()
}

/// A certificate that ends in a day, and its key.
pub fn self_signed() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}

/// A file of its own for each test, gone with the test.
pub struct SecretFile(PathBuf);

impl SecretFile {
    pub fn holding(text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("o365feed-secret-{}", Uuid::from_u128(rand::random()))));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn credential(&self) -> Credential {
        Credential::SecretFile(self.0.clone())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
