use std::{fs, path::PathBuf, sync::Mutex};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    pkey::PKey,
    rsa::Rsa,
    x509::{X509, X509NameBuilder, extension::SubjectAlternativeName},
};
use reqwest::{Client, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
};
use uuid::Uuid;

use super::{
    serve::{HEAD_MAX, HEAD_TIME, HEADERS},
    *,
};

const SECRET: &str = "0123456789abcdef";

/// Keeps what it is given, and answers as it is told once it may.
#[derive(Clone)]
struct Shelf {
    got: Arc<Mutex<Vec<Bytes>>>,
    answer: Taken,
    /// Waited for before each answer.
    gate: Option<Arc<Notify>>,
}

impl Take for Shelf {
    async fn take(&self, body: Bytes) -> Taken {
        self.got.lock().unwrap().push(body);
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        self.answer
    }
}

struct Stage {
    address: SocketAddr,
    shelf: Shelf,
    metrics: Metrics,
    client: Client,
    stop: CancellationToken,
    serving: Serving,
}

impl Stage {
    async fn answering(answer: Taken) -> Self {
        Self::with(Shelf { got: Arc::default(), answer, gate: None }, None).await
    }

    /// As `/metrics` tells it, in seconds.
    fn certificate_lasts(&self) -> Option<f64> {
        let page = self.metrics.render();
        let mut lines = page.lines();
        lines.find_map(|line| line.strip_prefix("o365feed_webhook_certificate_expires_in_seconds "))?.parse().ok()
    }

    async fn with(shelf: Shelf, tls: Option<config::Tls>) -> Self {
        let settings = config::Webhook {
            enabled: true,
            listen: ([127, 0, 0, 1], 0).into(),
            public_url: None,
            auth_id: None,
            tls,
            missed_after: Duration::ZERO,
        };
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let secret = SecretString::from(SECRET);
        let serving = receive(&settings, &secret, metrics.clone(), shelf.clone(), stop.clone()).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { address: serving.address, shelf, metrics, client, stop, serving }
    }

    fn post(&self, auth_id: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}/any/path", self.address)).header("Webhook-AuthID", auth_id)
    }

    fn got(&self) -> usize {
        self.shelf.got.lock().unwrap().len()
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.metrics.webhook_requests_total.with_label_values(&[outcome.as_str()]).get()
    }
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_validation_is_answered_at_once_and_given_to_nobody() {
    let stage = Stage::answering(Taken::NotNow).await;
    assert_eq!(stage.certificate_lasts(), None, "without TLS there is none to expire");
    for name in ["Webhook-ValidationCode", "Webhook-Validationcode", "webhook-validationcode"] {
        let body = r#"{"validationCode":"abc"}"#;
        assert_eq!(status(stage.post(SECRET).header(name, "abc").body(body)).await, 200, "{name}");
    }
    assert_eq!(status(stage.post(SECRET).body(r#"{"validationCode":"abc"}"#)).await, 200, "its header was lost");
    assert_eq!((stage.got(), stage.count(Outcome::Validated)), (0, 4));
    let stranger = stage.post("0123456789abcdeX").header("Webhook-ValidationCode", "abc");
    assert_eq!(status(stranger).await, 403);
}

#[tokio::test]
async fn only_who_knows_the_secret_gets_anything_in() {
    let stage = Stage::answering(Taken::Safe).await;
    for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"] {
        assert_eq!(status(stage.post(wrong).body("[]")).await, 403, "{wrong}");
    }
    let bare = stage.client.post(format!("http://{}/", stage.address)).body("[]");
    assert_eq!(status(bare).await, 403);
    assert_eq!((stage.got(), stage.count(Outcome::Unauthorised)), (0, 5));
    assert_eq!(status(stage.post(SECRET).body("[]")).await, 200);
    assert_eq!(stage.shelf.got.lock().unwrap()[0], "[]");
    assert_eq!(stage.count(Outcome::Taken), 1);
}

#[tokio::test]
async fn what_is_not_safe_is_not_answered_with_200() {
    for (answer, expected) in [(Taken::NotNow, 503), (Taken::Unreadable, 400)] {
        let stage = Stage::answering(answer).await;
        assert_eq!(status(stage.post(SECRET).body("[]")).await, expected);
    }
}

#[tokio::test]
async fn other_methods_and_bodies_without_end_are_refused() {
    let stage = Stage::answering(Taken::Safe).await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        let request = stage.client.request(method, format!("http://{}/", stage.address));
        assert_eq!(status(request.header("Webhook-AuthID", SECRET)).await, 405);
    }
    assert_eq!(status(stage.post(SECRET).body(vec![b' '; BODY_MAX])).await, 200);
    // One byte too many: told beforehand, and found out. Nothing more is sent, so that the answer is not lost in a reset.
    let mebibyte = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let chunks = [mebibyte.repeat(BODY_MAX >> 20), b"1\r\n \r\n".to_vec()].concat();
    let told = format!("content-length: {}", BODY_MAX + 1);
    for (length, body) in [(told.as_str(), Vec::new()), ("transfer-encoding: chunked", chunks)] {
        let mut raw = TcpStream::connect(stage.address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\nwebhook-authid: {SECRET}\r\n{length}\r\n\r\n");
        raw.write_all(&[head.into_bytes(), body].concat()).await.unwrap();
        let mut answer = [0; 12];
        raw.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413", "{length}");
    }
    assert_eq!(stage.count(Outcome::TooLarge), 2);
}

#[tokio::test]
async fn more_entries_than_any_notification_has_are_refused_before_they_are_read() {
    let stage = Stage::answering(Taken::Safe).await;
    let of = |entry: &str, count: usize| format!("[{}]", vec![entry; count].join(","));
    for entry in ["0", "{}", "[0,0]", r#"{"tenantId":"x"}"#] {
        assert_eq!(status(stage.post(SECRET).body(of(entry, ENTRIES_MAX))).await, 200, "{entry}");
        assert_eq!(status(stage.post(SECRET).body(of(entry, ENTRIES_MAX + 1))).await, 413, "{entry}");
    }
    // As many as a body can have; and one that never ends, or goes wrong too late.
    assert_eq!(status(stage.post(SECRET).body(of("0", (BODY_MAX - 1) / 2))).await, 413);
    assert_eq!(status(stage.post(SECRET).body("[0".to_owned() + &",0".repeat(ENTRIES_MAX))).await, 413);
    assert_eq!((stage.got(), stage.count(Outcome::TooMany)), (4, 6));
    // What is in an entry, or in no array, is for others to judge.
    let nested = [format!("[{}]", of("0", 2 * ENTRIES_MAX)), format!("{{\"a\":{}}}", of("0", 2 * ENTRIES_MAX))];
    let deep = "[".repeat(100_000);
    for body in [nested.as_slice(), &[deep, String::new(), "<html>".to_owned()]].concat() {
        assert_eq!(status(stage.post(SECRET).body(body)).await, 200);
    }
    assert_eq!(stage.got(), 9);
}

#[tokio::test]
async fn what_is_being_received_is_answered_before_the_end() {
    let gate = Arc::new(Notify::new());
    let shelf = Shelf { got: Arc::default(), answer: Taken::Safe, gate: Some(Arc::clone(&gate)) };
    let stage = Stage::with(shelf, None).await;
    let sent = tokio::spawn(stage.post(SECRET).body("[]").send());
    while stage.got() == 0 {
        tokio::task::yield_now().await;
    }
    stage.stop.cancel();
    gate.notify_one();
    assert_eq!(sent.await.unwrap().unwrap().status().as_u16(), 200);
    stage.serving.ended.await.unwrap().unwrap();
}

/// Time stands still while anything happens, and jumps to the next time limit when nothing does.
#[tokio::test(start_paused = true)]
async fn whoever_sends_too_slowly_or_nothing_at_all_is_let_go() {
    let stage = Stage::answering(Taken::Safe).await;
    let begun = tokio::time::Instant::now();
    let mut slow = TcpStream::connect(stage.address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nwebhook-authid: {SECRET}\r\ncontent-length: 9\r\n\r\n[");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(BODY_TIME <= begun.elapsed());
    for sent in ["", "POST / HTTP/1.1\r\nhost:"] {
        let mut silent = TcpStream::connect(stage.address).await.unwrap();
        silent.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Closed, or cut off: either is an end.
        let _ = silent.read_to_end(&mut rest).await;
    }
    assert_eq!((stage.got(), stage.count(Outcome::TooSlow)), (0, 1));
}

/// Sends `first`, then `then` every five seconds, until the other side has had enough.
async fn dribble(address: SocketAddr, first: &[u8], then: &[u8]) {
    let mut slow = TcpStream::connect(address).await.unwrap();
    let mut sent = slow.write_all(first).await;
    while sent.is_ok() {
        let mut heard = [0; 1_024];
        // What it says does not matter, but that it ends does.
        match timeout(Duration::from_secs(5), slow.read(&mut heard)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => continue,
            Err(_) => sent = slow.write_all(then).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_dribbles_heads_or_never_shows_the_secret_is_let_go() {
    let stage = Stage::answering(Taken::Safe).await;
    let known = format!("POST / HTTP/1.1\r\nhost: x\r\nwebhook-authid: {SECRET}\r\ncontent-length: 2\r\n\r\n[]");
    let second = format!("{known}POST / HTTP/1.1\r\nx: ");
    let stranger = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let ping = b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0";
    // Headers of a stream that never end.
    let headers = b"\0\0\0\x01\0\0\0\0\x01";
    let continued = b"\0\0\0\x09\0\0\0\0\x01";
    for (first, then) in [
        (&b"POST / HTTP/1.1\r\nx: "[..], &b"y"[..]),
        (b"P", b"R"),
        (b"PRI", b" "),
        (second.as_bytes(), b"y"),
        (stranger.as_bytes(), stranger.as_bytes()),
        (preface, ping),
        (&[&preface[..], headers].concat(), continued),
    ] {
        let begun = tokio::time::Instant::now();
        dribble(stage.address, first, then).await;
        assert!(begun.elapsed() <= 2 * HEAD_TIME, "{}", String::from_utf8_lossy(first));
    }
    assert_eq!((stage.got(), stage.count(Outcome::Taken)), (1, 1));
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_before_their_end() {
    let stage = Stage::answering(Taken::Safe).await;
    let answer = async |sent: String| {
        let mut raw = TcpStream::connect(stage.address).await.unwrap();
        raw.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        raw.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    };
    let begin = format!("POST / HTTP/1.1\r\nhost: x\r\nwebhook-authid: {SECRET}\r\ncontent-length: 0\r\nx: ");
    let large = "y".repeat(HEAD_MAX - begin.len());
    assert_eq!(answer(format!("{begin}{large}")).await, "HTTP/1.1 431");
    assert_eq!(answer(format!("{begin}{}\r\n\r\n", &large[4..])).await, "HTTP/1.1 200", "it just fits");
    let many = "x: y\r\n".repeat(HEADERS - 3);
    assert_eq!(answer(format!("{begin}y\r\n{many}\r\n")).await, "HTTP/1.1 431");
    assert_eq!(answer(format!("{begin}y\r\n{}\r\n", &many[6..])).await, "HTTP/1.1 200");
    assert_eq!(stage.got(), 2);
}

#[tokio::test]
async fn notifications_come_by_http_2_too_and_large_heads_do_not() {
    let stage = Stage::answering(Taken::Safe).await;
    let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let post = || client.post(format!("http://{}/", stage.address)).header("webhook-authid", SECRET);
    assert_eq!(status(post().body(vec![b' '; BODY_MAX])).await, 200);
    let refused = post().header("x", "y".repeat(HEAD_MAX)).body("[]").send().await;
    assert!(refused.is_err() || refused.unwrap().status() == 431);
    assert_eq!(stage.got(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_requests_and_does_not_read_is_let_go() {
    let stage = Stage::answering(Taken::Safe).await;
    let socket = TcpSocket::new_v4().unwrap();
    // The fewer answers the system holds, the sooner nothing moves.
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut deaf = socket.connect(stage.address).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nwebhook-authid: {SECRET}\r\nwebhook-validationcode: a\r\n\
         content-length: 0\r\n\r\n"
    );
    let requests = head.repeat(64);
    let told = async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(Duration::from_secs(3_600), told).await.expect("it is not heard for ever");
    assert!(stage.count(Outcome::Validated) > 0);
}

/// A self-signed certificate of this name and its key, as PEM.
fn certificate(name: &str) -> (Vec<u8>, Vec<u8>) {
    let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    let local = SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(local).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build().to_pem().unwrap(), key.private_key_to_pem_pkcs8().unwrap())
}

/// Two files of their own, gone with the test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let files = Self(std::env::temp_dir().join(format!("o365feed-webhook-{}", Uuid::from_u128(rand::random()))));
        fs::create_dir(&files.0).unwrap();
        files
    }

    fn tls(&self) -> config::Tls {
        config::Tls { certificate_file: self.0.join("tls.crt"), key_file: self.0.join("tls.key") }
    }

    fn write(&self, (certificate, key): &(Vec<u8>, Vec<u8>)) {
        fs::write(self.tls().certificate_file, certificate).unwrap();
        fs::write(self.tls().key_file, key).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Who trusts this certificate and no other.
fn trusting(certificate: &[u8]) -> Client {
    let root = reqwest::Certificate::from_pem(certificate).unwrap();
    Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let (files, first, second) = (Files::new(), certificate("first"), certificate("second, renewed"));
    files.write(&first);
    let shelf = Shelf { got: Arc::default(), answer: Taken::Safe, gate: None };
    let stage = Stage::with(shelf, Some(files.tls())).await;
    // A new client has no connection to go on with.
    let ask = async |certificate: &[u8]| {
        let request = trusting(certificate).post(format!("https://{}/", stage.address));
        request.header("Webhook-AuthID", SECRET).body("[]").send().await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(ask(&first.0).await.unwrap(), 200);
    assert!((86_000.0..=86_400.0).contains(&stage.certificate_lasts().unwrap()));
    // Whoever speaks plain http, or nothing, keeps nobody else waiting.
    let _silent = TcpStream::connect(stage.address).await.unwrap();
    assert!(stage.post(SECRET).body("[]").send().await.is_err());
    // Half of a renewal: the new certificate, the old key.
    fs::write(files.tls().certificate_file, &second.0).unwrap();
    assert_eq!(ask(&first.0).await.unwrap(), 200);
    fs::write(files.tls().key_file, b"nonsense").unwrap();
    assert_eq!(ask(&first.0).await.unwrap(), 200);
    files.write(&second);
    assert_eq!(ask(&second.0).await.unwrap(), 200);
    assert!(ask(&first.0).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_is_none_is_refused_at_the_start_and_named() {
    let files = Files::new();
    let begin = async || {
        let settings = config::Webhook {
            enabled: true,
            listen: ([127, 0, 0, 1], 0).into(),
            public_url: None,
            auth_id: None,
            tls: Some(files.tls()),
            missed_after: Duration::ZERO,
        };
        let shelf = Shelf { got: Arc::default(), answer: Taken::Safe, gate: None };
        let secret = SecretString::from(SECRET);
        receive(&settings, &secret, Metrics::new(), shelf, CancellationToken::new()).await.map(drop).unwrap_err()
    };
    let missing = begin().await;
    assert!(std::error::Error::source(&missing).unwrap().to_string().contains("tls.crt"), "{missing}");
    files.write(&(certificate("a").0, certificate("b").1));
    assert!(matches!(begin().await, WebhookError::Certificate(_)), "they do not belong together");
}
