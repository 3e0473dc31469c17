//! Whether a host can be reached: name, connection, TLS and the clock of its answer, one after the other.
//! Carries no token and proves nothing about rights. The way is the one that every other call of this room takes.

use std::{io, time::Duration};

use axum::http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use jiff::{SignedDuration, Timestamp};
use openssl::x509::X509;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use url::Url;

use super::{client, wire};

/// A host that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// `manage.office.com:443`
    pub host: String,
    pub way: Way,
    pub line: Line,
    /// From looking the name up to the end of the handshake.
    pub took: Duration,
    /// How far the answer's `Date` is ahead of our clock (negative: behind), to about a second.
    pub clock_ahead: Option<SignedDuration>,
}

/// Through what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The name has so many addresses.
    Direct { addresses: usize },
    /// `host:port` of the proxy from the environment; never its password.
    Proxy(String),
}

/// How what is sent there travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// TLS, and its certificate is trusted.
    Tls,
    /// http, unencrypted.
    Plain,
    /// Behind a kind of proxy that this probe does not speak to; calls may.
    Unseen,
}

/// Why a host was not reached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{host}{}: {obstacle}", .proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default())]
pub struct Unreached {
    pub host: String,
    pub proxy: Option<String>,
    pub obstacle: Obstacle,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Obstacle {
    /// DNS.
    #[error("the name `{name}` was not found ({why})")]
    Name { name: String, why: String },
    #[error("no connection ({0})")]
    Connection(String),
    /// The proxy's answer to CONNECT.
    #[error("the proxy answered `{0}`")]
    Proxy(String),
    /// TLS works, but somebody signed the certificate whom this machine does not know.
    #[error("its certificate is not trusted; it was issued by {issuer} ({why})")]
    Untrusted { issuer: String, why: String },
    #[error("no TLS ({0})")]
    Tls(String),
    #[error("nothing came within {} s while {doing}", .waited.as_secs())]
    Silence { doing: &'static str, waited: Duration },
}

/// Tries the host of `root`; each step may take as long as `patience`. One request (HEAD /) without a token.
///
/// # Errors
/// The first step that failed.
pub async fn reach(root: &Url, patience: Duration) -> Result<Reached, Unreached> {
    let host = root.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = root.port_or_known_default().unwrap_or(443);
    let proxy = if client::is_local(root) { None } else { proxy_of(root) };
    let target = Target { host, port, is_https: root.scheme() == "https", proxy, patience };
    target.reach().await.map_err(|obstacle| Unreached {
        host: target.name(),
        proxy: target.proxy.as_ref().map(Proxy::name),
        obstacle,
    })
}

struct Target {
    host: String,
    port: u16,
    is_https: bool,
    proxy: Option<Proxy>,
    patience: Duration,
}

struct Proxy {
    scheme: String,
    host: String,
    port: u16,
    /// The value of a header, secret.
    authorization: Option<String>,
}

/// The proxy that reqwest takes for this address, found by the same code.
fn proxy_of(root: &Url) -> Option<Proxy> {
    let uri: Uri = root.as_str().parse().ok()?;
    let found = Matcher::from_system().intercept(&uri)?;
    let scheme = found.uri().scheme_str().unwrap_or("http").to_owned();
    let port = found.uri().port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let authorization = found.basic_auth().and_then(|value| value.to_str().ok()).map(str::to_owned);
    Some(Proxy { scheme, host: found.uri().host()?.to_owned(), port, authorization })
}

impl Proxy {
    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Target {
    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn reach(&self) -> Result<Reached, Obstacle> {
        let began = Instant::now();
        let (stream, way) = self.connect().await?;
        let reached = |line, clock_ahead| Reached { host: self.name(), way, line, took: began.elapsed(), clock_ahead };
        if self.proxy.as_ref().is_some_and(|proxy| proxy.scheme != "http") {
            return Ok(reached(Line::Unseen, None));
        }
        if !self.is_https {
            return Ok(reached(Line::Plain, self.clock(stream).await));
        }
        match self.handshake(stream, native_tls::TlsConnector::builder()).await? {
            Ok(tls) => Ok(reached(Line::Tls, self.clock(tls).await)),
            Err(why) => Err(self
                .issuer()
                .await
                .map_or_else(|| Obstacle::Tls(why.clone()), |issuer| Obstacle::Untrusted { issuer, why: why.clone() })),
        }
    }

    /// A connection to the host, through the proxy's tunnel where there is a proxy.
    async fn connect(&self) -> Result<(TcpStream, Way), Obstacle> {
        let (host, port) = self.proxy.as_ref().map_or((&self.host, self.port), |proxy| (&proxy.host, proxy.port));
        let unknown = |why: io::Error| Obstacle::Name { name: host.clone(), why: why.to_string() };
        let found = self.in_time("looking the name up", tokio::net::lookup_host((host.as_str(), port))).await?;
        let addresses: Vec<_> = found.map_err(unknown)?.collect();
        let connected = self.in_time("connecting", TcpStream::connect(&addresses[..])).await?;
        let mut stream = connected.map_err(|why| Obstacle::Connection(why.to_string()))?;
        let Some(proxy) = &self.proxy else { return Ok((stream, Way::Direct { addresses: addresses.len() })) };
        if proxy.scheme == "http" && self.is_https {
            self.tunnel(&mut stream, proxy).await?;
        }
        Ok((stream, Way::Proxy(proxy.name())))
    }

    async fn tunnel(&self, stream: &mut TcpStream, proxy: &Proxy) -> Result<(), Obstacle> {
        let authorization = proxy.authorization.as_ref();
        let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        let name = self.name();
        let request = format!("CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n{authorization}\r\n");
        let head = self.in_time("asking the proxy for a tunnel", head_of(stream, &request)).await?;
        let head = head.map_err(|why| Obstacle::Connection(why.to_string()))?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
            return Ok(());
        }
        Err(Obstacle::Proxy(wire::one_line(status)))
    }

    /// The inner error is the TLS library's word.
    async fn handshake(
        &self,
        stream: TcpStream,
        mut how: native_tls::TlsConnectorBuilder,
    ) -> Result<Result<tokio_native_tls::TlsStream<TcpStream>, String>, Obstacle> {
        let connector = how.use_sni(true).build().map_err(|why| Obstacle::Tls(why.to_string()))?;
        let connector = tokio_native_tls::TlsConnector::from(connector);
        let shaken = self.in_time("shaking hands", connector.connect(&self.host, stream)).await?;
        Ok(shaken.map_err(|why| wire::one_line(&why.to_string())))
    }

    /// Who signed the certificate of a host that is not trusted. Nothing is sent over this second connection.
    async fn issuer(&self) -> Option<String> {
        let (stream, _) = self.connect().await.ok()?;
        let mut how = native_tls::TlsConnector::builder();
        how.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        let tls = self.handshake(stream, how).await.ok()?.ok()?;
        let certificate = tls.get_ref().peer_certificate().ok()??;
        let certificate = X509::from_der(&certificate.to_der().ok()?).ok()?;
        let parts = certificate.issuer_name().entries();
        let parts = parts.map(|part| String::from_utf8_lossy(part.data().as_slice()).into_owned());
        Some(format!("`{}`", wire::one_line(&parts.collect::<Vec<_>>().join(", "))))
    }

    /// The clock of whoever answers. A host that does not is reached all the same.
    async fn clock(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<SignedDuration> {
        let request = format!(
            "HEAD / HTTP/1.1\r\nHost: {}\r\nUser-Agent: o365feed/{}\r\nConnection: close\r\n\r\n",
            self.host,
            env!("CARGO_PKG_VERSION")
        );
        let head = timeout(self.patience, head_of(&mut stream, &request)).await.ok()?.ok()?;
        let date = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("date").then(|| value.trim().to_owned())
        })?;
        Some(wire::http_date(&date)?.duration_since(Timestamp::now()))
    }

    async fn in_time<T>(&self, doing: &'static str, work: impl Future<Output = T>) -> Result<T, Obstacle> {
        timeout(self.patience, work).await.map_err(|_| Obstacle::Silence { doing, waited: self.patience })
    }
}

/// Sends a request without a body and reads the head of the answer, or as much as comes of it.
async fn head_of(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> io::Result<String> {
    /// A head is far shorter; what is longer is none.
    const MAX: usize = 16 * 1024;
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while head.len() < MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).await? {
            0 => break,
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
